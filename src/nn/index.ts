/** `mamba-ts/nn`: modules, layers and the initial values of parameters. */
export {
  aLogParameter,
  constantParameter,
  dtBiasParameter,
  type Init,
  normalParameter,
  parameter,
  uniformParameter,
} from './init.ts';
export { Embedding, GatedMlp, gatedMlpWidth, Linear, Lora, Norm } from './layers.ts';
export { addLora, type LoraConfig, loraLinears, loraParameters, mergeLora } from './lora.ts';
export { Module } from './module.ts';
