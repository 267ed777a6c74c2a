/** The names of the files of a model, on disk and on a hub. */
export const CONFIG_FILE = 'config.json';
export const WEIGHTS_FILE = 'model.safetensors';

/** In the order in which transformers looks for them. */
export const WEIGHTS_FILES = [
  WEIGHTS_FILE,
  'model.safetensors.index.json',
  'pytorch_model.bin',
  'pytorch_model.bin.index.json',
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
