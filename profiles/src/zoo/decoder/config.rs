//! A decoder from the `config.json` that stands beside the weights on Hugging Face.
//!
//! Every key is known: those that shape the model are read, those that do not are listed here and
//! skipped, and any other one is refused. A misspelt `num_key_value_heads` would otherwise silently
//! mean another model.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Decoder, FeedForward};
use crate::precision::Precision;
use crate::text;

/// What a `config.json` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The architecture.
    pub decoder: Decoder,
    /// Numbers that the weights are stored in, where the file says.
    pub precision: Option<Precision>,
}

/// Why a `config.json` gives no model.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Something in the file is wrong or not supported.
    #[error("{}:{line}: {key}: {problem}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// What is wrong, and what to do about it.
        problem: String,
    },
}

/// An architecture that is read, and how it differs from the others.
struct Family {
    /// `model_type`.
    model_type: &'static str,
    /// `architectures`.
    class: &'static str,
    /// Heads of keys and values may be missing: as many as query heads.
    kv_heads_default: bool,
    /// `head_dim` may be missing: width over heads.
    head_dim_default: bool,
    /// Biases on queries, keys and values whatever the file says.
    qkv_bias: bool,
    /// Norms on every head of queries and keys.
    qk_norm: bool,
    /// Keys of the number of experts, and of their inner width.
    experts: Option<[&'static str; 2]>,
}

const LLAMA: Family = Family {
    model_type: "llama",
    class: "LlamaForCausalLM",
    kv_heads_default: true,
    head_dim_default: true,
    qkv_bias: false,
    qk_norm: false,
    experts: None,
};

const FAMILIES: &[Family] = &[
    LLAMA,
    Family { model_type: "mistral", class: "MistralForCausalLM", kv_heads_default: false, ..LLAMA },
    Family {
        model_type: "qwen2",
        class: "Qwen2ForCausalLM",
        kv_heads_default: false,
        qkv_bias: true,
        ..LLAMA
    },
    Family {
        model_type: "qwen3",
        class: "Qwen3ForCausalLM",
        kv_heads_default: false,
        head_dim_default: false,
        qk_norm: true,
        ..LLAMA
    },
    Family {
        model_type: "qwen3_moe",
        class: "Qwen3MoeForCausalLM",
        kv_heads_default: false,
        head_dim_default: false,
        qk_norm: true,
        experts: Some(["num_experts", "moe_intermediate_size"]),
        ..LLAMA
    },
    Family {
        model_type: "mixtral",
        class: "MixtralForCausalLM",
        kv_heads_default: false,
        experts: Some(["num_local_experts", "intermediate_size"]),
        ..LLAMA
    },
    Family { model_type: "phi3", class: "Phi3ForCausalLM", ..LLAMA },
];

/// Keys that are read, of any family.
const READ: &[&str] = &[
    "model_type",
    "architectures",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "max_position_embeddings",
    "sliding_window",
    "use_sliding_window",
    "layer_types",
    "num_experts",
    "num_local_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "decoder_sparse_step",
    "mlp_only_layers",
    "hidden_act",
    "torch_dtype",
    "dtype",
    "quantization_config",
];

/// Keys that change neither shapes nor what a step computes.
const NEUTRAL: &[&str] = &[
    "attention_dropout",
    "attn_implementation",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cls_token_id",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dropout",
    "early_stopping",
    "embd_pdrop",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "is_decoder",
    "keys_to_ignore_at_inference",
    "label2id",
    "length_penalty",
    "max_length",
    "max_window_layers",
    "min_length",
    "no_repeat_ngram_size",
    "norm_topk_prob",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "original_max_position_embeddings",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "output_scores",
    "pad_token_id",
    "partial_rotary_factor",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torchscript",
    "transformers_version",
    "typical_p",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
];

/// The decoder that a `config.json` describes, called after the folder that it lies in.
///
/// # Errors
/// A file that does not read, an architecture that is not supported, a key that is missing, unknown
/// or out of range: each with the file, the key and what to do.
pub fn read_config(path: &Path) -> Result<Checkpoint, ConfigError> {
    let io = |source| ConfigError::Io { path: path.to_path_buf(), source };
    let text = std::fs::read_to_string(path).map_err(io)?;
    parse_config(path, &text)
}

/// The same of a text that was read already; `path` names it.
///
/// # Errors
/// As [`read_config`].
pub fn parse_config(path: &Path, text: &str) -> Result<Checkpoint, ConfigError> {
    let bad = |line, key: &str, problem: String| ConfigError::Bad {
        path: path.to_path_buf(),
        line,
        key: key.to_owned(),
        problem,
    };
    let values: Map<String, Value> = serde_json::from_str(text).map_err(|e| {
        bad(e.line().max(1), "file", format!("no JSON object as config.json is one: {e}"))
    })?;
    let config = Config { path, text, values };
    let family = config.family()?;
    config.refuse_unknown()?;
    let decoder = config.decoder(family)?;
    Ok(Checkpoint { decoder, precision: config.precision()? })
}

/// A parsed file, and where it stands.
struct Config<'a> {
    path: &'a Path,
    text: &'a str,
    values: Map<String, Value>,
}

impl Config<'_> {
    fn bad(&self, key: &str, problem: String) -> ConfigError {
        let quoted = format!("\"{key}\"");
        let at = self.text.find(&quoted).unwrap_or(0);
        let line = self.text[..at].matches('\n').count() + 1;
        ConfigError::Bad { path: self.path.to_path_buf(), line, key: key.to_owned(), problem }
    }

    /// The value of a key; `null` is none.
    fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|v| !v.is_null())
    }

    fn family(&self) -> Result<&'static Family, ConfigError> {
        let model_type = self.get("model_type").and_then(Value::as_str);
        let class = self.get("architectures").and_then(|v| v.get(0)?.as_str());
        let known = FAMILIES.iter().find(|f| match (model_type, class) {
            (Some(name), _) => f.model_type == name,
            (None, class) => Some(f.class) == class,
        });
        let supported = || {
            let all: Vec<&str> = FAMILIES.iter().map(|f| f.model_type).collect();
            all.join(", ")
        };
        match (known, model_type.or(class)) {
            (Some(family), _) => match class {
                // A classifier or a vision model on a known text model has another head.
                Some(class) if class != family.class => Err(self.bad(
                    "architectures",
                    format!(
                        "`{class}` is not supported, {} is: set it if the heads are the same",
                        family.class
                    ),
                )),
                _ => Ok(family),
            },
            (None, Some(name)) => {
                let key = if model_type.is_some() { "model_type" } else { "architectures" };
                let names = FAMILIES.iter().flat_map(|f| [f.model_type, f.class]);
                let nearest = text::closest(name, names)
                    .map_or_else(String::new, |n| format!(", the nearest to it is `{n}`"));
                Err(self.bad(
                    key,
                    format!(
                        "`{name}` is not supported{nearest}; supported are {}. A model with the same \
                         layers can be described as one of them; any other one can be measured and \
                         imported (cotenant profile import --help)",
                        supported()
                    ),
                ))
            }
            (None, None) => Err(self.bad(
                "model_type",
                format!("missing: add it, for example \"llama\"; supported are {}", supported()),
            )),
        }
    }

    fn refuse_unknown(&self) -> Result<(), ConfigError> {
        let known =
            |key: &str| key.starts_with('_') || READ.contains(&key) || NEUTRAL.contains(&key);
        let Some(key) = self.values.keys().find(|k| !known(k)) else {
            return Ok(());
        };
        let hint = text::closest(key, READ.iter().copied())
            .map_or_else(String::new, |known| format!("write `{known}` if that is meant, or "));
        let problem = format!(
            "unknown key: {hint}remove it if it changes neither shapes nor what a step computes"
        );
        Err(self.bad(key, problem))
    }

    /// A count from 1 to 2^24, if it is there.
    fn count(&self, key: &str) -> Result<Option<u32>, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let wrong = || self.bad(key, format!("`{value}` is not a whole number from 1 to 16777216"));
        let count = value.as_u64().filter(|n| (1..=1 << 24).contains(n)).ok_or_else(wrong)?;
        Ok(u32::try_from(count).ok())
    }

    fn need(&self, key: &str, what: &str) -> Result<u32, ConfigError> {
        let missing = || self.bad(key, format!("missing: the file must say {what}"));
        self.count(key)?.ok_or_else(missing)
    }

    fn flag(&self, key: &str) -> Result<bool, ConfigError> {
        let wrong = |v: &Value| self.bad(key, format!("`{v}` is neither true nor false"));
        self.get(key).map_or(Ok(false), |v| v.as_bool().ok_or_else(|| wrong(v)))
    }

    fn decoder(&self, family: &Family) -> Result<Decoder, ConfigError> {
        let width = self.need("hidden_size", "how wide a token is")?;
        let heads = self.need("num_attention_heads", "how many heads the queries have")?;
        let kv_heads = match self.count("num_key_value_heads")? {
            None if family.kv_heads_default => heads,
            None => self.need("num_key_value_heads", "how many heads keys and values have")?,
            Some(n) => n,
        };
        let head_dim = match self.count("head_dim")? {
            None if family.head_dim_default && width.is_multiple_of(heads) => width / heads,
            None => self.need("head_dim", "how wide a head is")?,
            Some(n) => n,
        };
        if !heads.is_multiple_of(kv_heads) {
            let problem = format!("{kv_heads} does not divide num_attention_heads, {heads}");
            return Err(self.bad("num_key_value_heads", problem));
        }
        if self.flag("mlp_bias")? {
            let problem = "biases of the feed-forward layers are not supported: set it to false; \
                           they are below 0.1 % of the parameters";
            return Err(self.bad("mlp_bias", problem.to_owned()));
        }
        let bias = self.flag("attention_bias")?;
        let name = self.name();
        Ok(Decoder {
            title: Cow::Owned(format!("{name} ({})", family.model_type)),
            name: Cow::Owned(name),
            layers: self.need("num_hidden_layers", "how many layers there are")?,
            width,
            heads,
            kv_heads,
            head_dim,
            feed_forward: self.feed_forward(family)?,
            vocabulary: self.need("vocab_size", "how many entries the vocabulary has")?,
            tied: self.flag("tie_word_embeddings")?,
            qkv_bias: family.qkv_bias || bias,
            o_bias: bias,
            qk_norm: family.qk_norm,
            window: self.window(family)?,
            positions: self.need("max_position_embeddings", "how long a context may be")?,
        })
    }

    fn feed_forward(&self, family: &Family) -> Result<FeedForward, ConfigError> {
        if let Some(act) = self.get("hidden_act")
            && !["silu", "swish", "gelu", "gelu_pytorch_tanh"].contains(&act.as_str().unwrap_or(""))
        {
            let problem = format!("`{act}` is not supported, \"silu\" is what costs the same");
            return Err(self.bad("hidden_act", problem));
        }
        let Some([experts, inner]) = family.experts else {
            let inner = self.need("intermediate_size", "how wide the feed-forward layers are")?;
            return Ok(FeedForward::Gated { inner });
        };
        if self.count("decoder_sparse_step")?.is_some_and(|n| n != 1) {
            let problem =
                "layers without experts between those with experts are not supported: 1 is";
            return Err(self.bad("decoder_sparse_step", problem.to_owned()));
        }
        if self.get("mlp_only_layers").is_some_and(|v| v.as_array().is_none_or(|a| !a.is_empty())) {
            let problem = "layers without experts are not supported: [] is";
            return Err(self.bad("mlp_only_layers", problem.to_owned()));
        }
        let inner = self.need(inner, "how wide an expert is")?;
        let experts = self.need(experts, "how many experts a layer has")?;
        let active = self.need("num_experts_per_tok", "how many experts a token goes to")?;
        if active > experts {
            let problem = format!("{active} of {experts} experts");
            return Err(self.bad("num_experts_per_tok", problem));
        }
        Ok(FeedForward::Experts { experts, active, inner })
    }

    /// The window of attention, where every layer has one.
    fn window(&self, family: &Family) -> Result<Option<u32>, ConfigError> {
        if let Some(types) = self.get("layer_types").and_then(Value::as_array)
            && types.iter().any(|t| t.as_str() != Some("full_attention"))
        {
            let problem = "layers of several kinds are not supported: `full_attention` is";
            return Err(self.bad("layer_types", problem.to_owned()));
        }
        // Qwen's files name a window that they do not use.
        let used = !family.model_type.starts_with("qwen") || self.flag("use_sliding_window")?;
        if used { self.count("sliding_window") } else { Ok(None) }
    }

    /// What the weights are stored in.
    fn precision(&self) -> Result<Option<Precision>, ConfigError> {
        let stored = self.get("torch_dtype").or(self.get("dtype")).and_then(Value::as_str);
        Ok(match stored {
            Some("float16" | "torch.float16") => Some(Precision::Fp16),
            Some("bfloat16" | "torch.bfloat16") => Some(Precision::Bf16),
            Some("float32" | "torch.float32") => Some(Precision::Fp32),
            _ => None,
        })
    }

    /// The folder's name for a file called `config.json`, else the file's.
    fn name(&self) -> String {
        let stem = self.path.file_stem();
        let folder = self.path.parent().and_then(Path::file_name);
        let name = if stem.is_some_and(|s| s == "config") { folder.or(stem) } else { stem };
        name.map_or_else(|| "model".to_owned(), |n| n.to_string_lossy().into_owned())
    }
}
