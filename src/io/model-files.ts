/** The names of the files of a model, on disk and on a hub. */
export const CONFIG_FILE = 'config.json';
export const WEIGHTS_FILE = 'model.safetensors';
export const TORCH_FILE = 'pytorch_model.bin';
/** Of the layout of Codestral Mamba. */
export const PARAMS_FILE = 'params.json';
export const CONSOLIDATED_FILE = 'consolidated.safetensors';

/** In the order in which transformers looks for them; what it does not know comes last. */
export const WEIGHTS_FILES = [
  WEIGHTS_FILE,
  'model.safetensors.index.json',
  TORCH_FILE,
  'pytorch_model.bin.index.json',
  CONSOLIDATED_FILE,
] as const;

/** Texts beside the weights that belong to the tokenizer. */
export const TOKENIZER_FILES = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'chat_template.jinja',
  'mamba_tokenizer.json',
] as const;

export const GGUF = /\.gguf$/i;
