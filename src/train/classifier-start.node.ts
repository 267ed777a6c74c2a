/**
 * What a classification run begins with: a classifier with random weights, on a pretrained
 * backbone, or from its own checkpoint.
 */
import { ConfigError } from '../base/errors.ts';
import { basePaths } from '../io/load-weights.ts';
import { openPretrained, type Pretrained } from '../io/pretrained.node.ts';
import { Classifier } from '../models/classifier.ts';
import type { ClassifierHead, LoraConfig } from '../models/classifier-config.ts';
import type { TrainClassifyEvent } from './train-classify-events.ts';
import { backboneInput, type ClassifySettings } from './train-classify-options.ts';

/**
 * Opens the pretrained model that a backbone starts from. Close it. Throws ConfigError for one
 * whose adapters are not merged.
 */
export async function openBase(
  from: string,
  onProgress?: (event: TrainClassifyEvent) => void,
): Promise<Pretrained> {
  const base = await openPretrained(from, {
    onProgress(event) {
      if (event.kind === 'notice') onProgress?.(event);
    },
  });
  if (!base.head?.lora) return base;
  await base.close();
  throw new ConfigError(
    `train: expected a pretrained model without adapters, got one with (${base.path}). Load it with loadClassifier and save it, which merges them.`,
  );
}

/**
 * A new classifier with what is not trained frozen. A base of one direction gives both stacks their weights.
 */
export async function buildClassifier(
  settings: ClassifySettings,
  { labels, vocabSize, base }: { labels: string[]; vocabSize: number; base: Pretrained | null },
): Promise<Classifier> {
  const { pooling, bidirectional, maxTokens, tune, seed } = settings;
  if (base && base.config.vocab_size < vocabSize) {
    throw new ConfigError(
      `train: expected a tokenizer of at most the ${base.config.vocab_size} tokens of ${settings.from}, got ${vocabSize}. ` +
        'Leave --tokenizer out to use its own.',
    );
  }
  const model = new Classifier(
    {
      backbone: base?.config ?? backboneInput(settings, vocabSize),
      labels,
      pooling,
      bidirectional,
      maxTokens,
      lora: tune === 'lora' ? loraOf(settings, base!) : null,
    },
    { seed, embeddingStd: settings.embeddingStd },
  );
  if (base) {
    const paths = basePaths(base);
    for (const [i, stack] of model.stacks.entries()) {
      for (const [name, tensor] of stack.namedParameters(`${paths[i]}.`))
        if (!/\.lora\.[AB]$/.test(name)) tensor.write(await base.tensor(name));
    }
  }
  return freeze(model, settings);
}

/** The classifier of a checkpoint, its weights yet to be read. */
export function restoredClassifier(checkpoint: Pretrained, settings: ClassifySettings): Classifier {
  const head = checkpoint.head as ClassifierHead; // checked where the checkpoint was opened
  return freeze(new Classifier({ ...head, backbone: checkpoint.config }, { seed: null }), settings);
}

/** Leaves gradients to what `tune` trains: everything, the head alone, or the head and the adapters. */
function freeze(model: Classifier, { tune }: ClassifySettings): Classifier {
  if (tune === 'full') return model;
  for (const [name, tensor] of model.namedParameters())
    tensor.requiresGrad = name.startsWith('score.') || /\.lora\.[AB]$/.test(name);
  return model;
}

/** Mamba-1 has all three; the others have no x_proj. */
const LORA_TARGETS = ['in_proj', 'x_proj', 'out_proj'];

function loraOf({ loraRank, loraAlpha, loraTargets }: ClassifySettings, base: Pretrained): LoraConfig {
  const names = [...base.tensors.keys()];
  const targets =
    loraTargets ??
    LORA_TARGETS.filter((target) => names.some((name) => name.endsWith(`.mixer.${target}.weight`)));
  return { rank: loraRank, alpha: loraAlpha, targets };
}
