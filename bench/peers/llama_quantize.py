"""Calls llama_model_quantize of the libllama that node-llama-cpp ships: LIBRARIES IN.gguf OUT.gguf FTYPE (a number of enum llama_ftype).

Every tensor that allows it gets the type; a quantised input is allowed, so FTYPE 0 writes llama.cpp's own dequantisation as float32.
"""
import ctypes, glob, os, sys


class Params(ctypes.Structure):
    # struct llama_model_quantize_params of llama.h, as of the version pinned in _llama.mjs.
    _fields_ = [
        ("nthread", ctypes.c_int32),
        ("ftype", ctypes.c_int),
        ("output_tensor_type", ctypes.c_int),
        ("token_embedding_type", ctypes.c_int),
        ("allow_requantize", ctypes.c_bool),
        ("quantize_output_tensor", ctypes.c_bool),
        ("only_copy", ctypes.c_bool),
        ("pure", ctypes.c_bool),
        ("keep_split", ctypes.c_bool),
        ("dry_run", ctypes.c_bool),
        ("imatrix", ctypes.c_void_p),
        ("kv_overrides", ctypes.c_void_p),
        ("tt_overrides", ctypes.c_void_p),
        ("prune_layers", ctypes.c_void_p),
        ("max_buf_size", ctypes.c_size_t),
    ]


folder, source, target, ftype = sys.argv[1:]
for name in ("libggml-base.so", "libggml.*.so"):
    ctypes.CDLL(glob.glob(os.path.join(folder, name))[0], mode=ctypes.RTLD_GLOBAL)
llama = ctypes.CDLL(glob.glob(os.path.join(folder, "libllama.v*.so"))[0])
llama.llama_model_quantize_default_params.restype = Params
llama.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Params)]
llama.llama_model_quantize.restype = ctypes.c_uint32
llama.llama_backend_init()
params = llama.llama_model_quantize_default_params()
params.nthread = 1
params.ftype = int(ftype)
params.allow_requantize = True
sys.exit(llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)))
