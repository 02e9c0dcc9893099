//! The model zoo: well-known networks as layer lists with shapes.
//!
//! A list is what a framework's forward function executes in inference, layer by layer and per item
//! of a batch; [`crate::lower`] turns it into kernels. The zoo's numbers are checked against the
//! published parameter counts (exactly) and multiply-accumulates (torchvision's convention:
//! convolutions, linear layers and the two products of attention).

mod alexnet;
mod attention;
mod bert;
mod builder;
mod clip;
mod convnext;
pub mod decoder;
mod densenet;
mod describe;
mod efficientnet;
mod gpt;
mod inception;
pub mod layer;
mod mobilenet;
mod resnet;
mod sdxl;
mod shufflenet;
mod squeezenet;
mod swin;
mod t5;
mod vgg;
mod vit;
mod whisper;
mod yolo;

pub use layer::Layer;

use crate::precision::Precision;
use crate::text;
use crate::units::Bytes;

/// What a model takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A square RGB image; the size is its edge in pixels.
    Image,
    /// A token sequence; the size is its length.
    Tokens,
    /// One token after a cached context; the size is the context length.
    Context,
    /// Speech; the size is its length in frames of ten milliseconds.
    Speech,
}

impl Input {
    /// What the size counts.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Image => "pixels",
            Self::Tokens => "tokens",
            Self::Context => "tokens of context",
            Self::Speech => "frames",
        }
    }
}

/// One entry of the zoo.
#[derive(Clone, Copy, Debug)]
pub struct ModelInfo {
    /// Name, as torchvision or Hugging Face spell it.
    pub name: &'static str,
    /// Other names it answers to.
    pub aliases: &'static [&'static str],
    /// For people.
    pub title: &'static str,
    /// What it is for.
    pub task: &'static str,
    /// What it takes in.
    pub input: Input,
    /// The size used unless the name says another one (`bert_base@384`).
    pub default_size: u32,
    /// Smallest and largest size.
    pub sizes: [u32; 2],
    build: fn(&str, u32) -> ModelSpec,
}

impl ModelInfo {
    /// The layer list at the default size.
    #[must_use]
    pub fn spec(&self) -> ModelSpec {
        (self.build)(self.name, self.default_size)
    }

    /// The layer list at another size; the model is then called `name@size`.
    ///
    /// # Errors
    /// The size lies outside [`ModelInfo::sizes`].
    pub fn spec_at(&self, size: u32) -> Result<ModelSpec, ZooError> {
        let [least, most] = self.sizes;
        if !(least..=most).contains(&size) {
            let (model, unit) = (self.name, self.input.unit());
            return Err(ZooError::Size { model, size, unit, least, most });
        }
        if size == self.default_size {
            return Ok(self.spec());
        }
        Ok((self.build)(&format!("{}@{size}", self.name), size))
    }
}

/// Why a name gives no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZooError {
    /// No such model.
    #[error("no model `{name}` in the zoo{hint}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// `; the closest name is …`, or nothing where none is close.
        hint: String,
    },
    /// What follows `@` is not a number.
    #[error("model `{name}`: what follows `@` must be a whole number of {unit}")]
    NoSize {
        /// The name asked for.
        name: String,
        /// What the number would count.
        unit: &'static str,
    },
    /// A size that the model cannot take.
    #[error("model `{model}` cannot take {size} {unit}: {least} to {most} are possible")]
    Size {
        /// The model.
        model: &'static str,
        /// The size asked for.
        size: u32,
        /// What the size counts.
        unit: &'static str,
        /// Smallest size.
        least: u32,
        /// Largest size.
        most: u32,
    },
}

/// One layer with the tensors it connects (indices that are unique within the model).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The layer.
    pub layer: Layer,
    /// Tensors it reads.
    pub inputs: Vec<usize>,
    /// The tensor it writes; every node writes its own.
    pub output: usize,
    /// The result lies where the first input lay.
    pub in_place: bool,
}

/// A model: its layers in execution order, and its sizes. Everything is per item of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// The zoo's name, with `@size` where it is not the default.
    pub name: String,
    /// Layers in execution order.
    pub nodes: Vec<Node>,
    params: u64,
    input_elements: u64,
    input_element_bytes: Option<u64>,
    output_elements: u64,
    peak_live_elements: u64,
}

impl ModelSpec {
    /// Parameters that are stored, shared ones once.
    #[must_use]
    pub fn params(&self) -> u64 {
        self.params
    }

    /// Multiply-accumulates of one item: convolutions, linear layers and products of activations.
    #[must_use]
    pub fn macs(&self) -> u64 {
        self.nodes.iter().map(|n| n.layer.macs()).sum()
    }

    /// Bytes of the parameters.
    #[must_use]
    pub fn weights_bytes(&self, precision: Precision) -> Bytes {
        Bytes(precision.weight_bytes(self.params))
    }

    /// Bytes copied to the device per item: pixels as wide as the precision, token ids as 8 bytes.
    #[must_use]
    pub fn input_per_item_bytes(&self, precision: Precision) -> Bytes {
        Bytes(self.input_elements * self.input_element_bytes.unwrap_or(precision.bytes()))
    }

    /// Bytes copied back per item.
    #[must_use]
    pub fn output_per_item_bytes(&self, precision: Precision) -> Bytes {
        Bytes(self.output_elements * precision.bytes())
    }

    /// Device memory for activations per item: the most that is alive at once when every tensor is
    /// freed after its last use. Library workspaces and allocator slack come on top.
    #[must_use]
    pub fn activations_per_item_bytes(&self, precision: Precision) -> Bytes {
        Bytes(self.peak_live_elements * precision.bytes())
    }
}

const CLASSIFY: &str = "image classification";
const DETECT: &str = "object detection";
const EMBED: &str = "image and text embedding";
const SPEECH: &str = "speech recognition";
const DRAW: &str = "image generation";
const ENCODE: &str = "text encoding";
const GENERATE: &str = "text generation";
const SERVE: &str = "text generation in steps of a serving engine";

/// A convolutional network for images of 224 pixels.
const fn image(
    name: &'static str,
    aliases: &'static [&'static str],
    title: &'static str,
    build: fn(&str, u32) -> ModelSpec,
) -> ModelInfo {
    ModelInfo {
        name,
        aliases,
        title,
        task: CLASSIFY,
        input: Input::Image,
        default_size: 224,
        sizes: [64, 1024],
        build,
    }
}

/// A detector for images of 640 pixels; its maps halve five times and meet again.
const fn detector(
    name: &'static str,
    title: &'static str,
    build: fn(&str, u32) -> ModelSpec,
) -> ModelInfo {
    ModelInfo {
        task: DETECT,
        default_size: 640,
        sizes: [640, 640],
        ..image(name, &[], title, build)
    }
}

const fn text(
    name: &'static str,
    aliases: &'static [&'static str],
    title: &'static str,
    build: fn(&str, u32) -> ModelSpec,
) -> ModelInfo {
    ModelInfo {
        name,
        aliases,
        title,
        task: ENCODE,
        input: Input::Tokens,
        // The length of BERT's first training phase, and of most published latencies.
        default_size: 128,
        sizes: [1, bert::POSITIONS],
        build,
    }
}

/// Every model, in the order in which they are listed to people.
pub const MODELS: &[ModelInfo] = &[
    image("alexnet", &[], "AlexNet", alexnet::alexnet),
    image("vgg16", &[], "VGG-16", vgg::vgg16),
    image("vgg19", &["vgg"], "VGG-19", vgg::vgg19),
    image("resnet18", &[], "ResNet-18", resnet::resnet18),
    image("resnet50", &["resnet"], "ResNet-50", resnet::resnet50),
    image("resnet101", &[], "ResNet-101", resnet::resnet101),
    image("resnet152", &[], "ResNet-152", resnet::resnet152),
    image("resnext101_32x8d", &["resnext101"], "ResNeXt-101 32x8d", resnet::resnext101_32x8d),
    image("densenet121", &[], "DenseNet-121", densenet::densenet121),
    image("densenet169", &[], "DenseNet-169", densenet::densenet169),
    image("densenet201", &["densenet"], "DenseNet-201", densenet::densenet201),
    image("squeezenet1_1", &["squeezenet"], "SqueezeNet 1.1", squeezenet::squeezenet1_1),
    image(
        "shufflenet_v2_x1_0",
        &["shufflenet", "shufflenet_v2"],
        "ShuffleNet V2 1.0x",
        shufflenet::shufflenet_v2_x1_0,
    ),
    image("mobilenet_v2", &["mobilenet"], "MobileNetV2", mobilenet::mobilenet_v2),
    ModelInfo {
        default_size: 299,
        // Below 75 pixels the last stages have nothing left.
        sizes: [75, 1024],
        ..image("inception_v3", &["inception"], "Inception v3", inception::inception_v3)
    },
    ModelInfo {
        // The position embedding fixes the size.
        sizes: [224, 224],
        ..image("vit_b_16", &["vit"], "ViT-B/16", vit::vit_b_16)
    },
    image("efficientnet_b0", &[], "EfficientNet-B0", efficientnet::efficientnet_b0),
    ModelInfo {
        default_size: 380,
        ..image("efficientnet_b4", &[], "EfficientNet-B4", efficientnet::efficientnet_b4)
    },
    image("convnext_tiny", &["convnext_t", "convnext"], "ConvNeXt-T", convnext::convnext_tiny),
    ModelInfo {
        // Whole windows at every stage.
        sizes: [224, 224],
        ..image("swin_t", &["swin"], "Swin-T", swin::swin_t)
    },
    detector("yolov8n", "YOLOv8n", yolo::yolov8n),
    detector("yolov8m", "YOLOv8m", yolo::yolov8m),
    detector("yolov8x", "YOLOv8x", yolo::yolov8x),
    ModelInfo {
        task: EMBED,
        sizes: [224, 224],
        ..image("clip_vit_l_14", &["clip"], "CLIP ViT-L/14, image", clip::clip_vit_l_14)
    },
    ModelInfo {
        task: DRAW,
        default_size: 1024,
        sizes: [1024, 1024],
        ..image("sdxl_unet", &["sdxl"], "Stable Diffusion XL, one step", sdxl::sdxl_unet)
    },
    ModelInfo {
        task: SPEECH,
        input: Input::Speech,
        default_size: 3000,
        sizes: [3000, 3000],
        ..image(
            "whisper_large_v3",
            &["whisper"],
            "Whisper large-v3, encoding of 30 s",
            whisper::whisper_large_v3,
        )
    },
    text("bert_base", &["bert"], "BERT base", bert::bert_base),
    text("bert_large", &[], "BERT large", bert::bert_large),
    ModelInfo { default_size: 512, ..text("bge_large", &["bge"], "BGE large", bert::bge_large) },
    ModelInfo {
        default_size: 512,
        sizes: [1, bert::LONG_POSITIONS],
        ..text(
            "bge_reranker_v2_m3",
            &["bge_reranker"],
            "BGE reranker v2 m3",
            bert::bge_reranker_v2_m3,
        )
    },
    ModelInfo { default_size: 512, ..text("t5_base", &["t5"], "T5 base, encoding", t5::t5_base) },
    text("albert_base", &["albert"], "ALBERT base v2", bert::albert_base),
    ModelInfo {
        task: GENERATE,
        sizes: [1, gpt::POSITIONS],
        ..text("gpt2", &["gpt2_prefill"], "GPT-2 small, prefill of a prompt", gpt::gpt2)
    },
    ModelInfo {
        task: GENERATE,
        input: Input::Context,
        default_size: 512,
        sizes: [1, gpt::POSITIONS],
        ..text("gpt2_decode", &[], "GPT-2 small, one decoding step", gpt::gpt2_decode)
    },
];

/// The names of the zoo by task, both in the order in which they are listed to people; the decoders
/// are the last task.
#[must_use]
pub fn by_task() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut tasks: Vec<(&str, Vec<&str>)> = Vec::new();
    for model in MODELS {
        match tasks.iter_mut().find(|(task, _)| *task == model.task) {
            Some((_, names)) => names.push(model.name),
            None => tasks.push((model.task, vec![model.name])),
        }
    }
    tasks.push((SERVE, decoder::DECODERS.iter().map(|d| &*d.name).collect()));
    tasks
}

/// Names are compared in lower case and without separators: `BERT-base` is `bert_base`.
fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_' | '.')).flat_map(char::to_lowercase).collect()
}

/// The entry of a name, without any `@size`.
///
/// # Errors
/// No such model; the error names the closest one.
pub fn info(name: &str) -> Result<&'static ModelInfo, ZooError> {
    let wanted = plain(name);
    let names = |m: &'static ModelInfo| m.aliases.iter().copied().chain([m.name]);
    if let Some(model) = MODELS.iter().find(|m| names(m).any(|n| plain(n) == wanted)) {
        return Ok(model);
    }
    Err(unknown(name, ", which a tenant with an `engine` serves"))
}

/// The closest name of all; `how` follows that of a decoder.
fn unknown(name: &str, how: &str) -> ZooError {
    let wanted = plain(name);
    let decoders = decoder::DECODERS.iter().map(|d| &*d.name);
    let all = MODELS.iter().map(|m| m.name).chain(decoders.clone());
    let plains: Vec<(String, &str)> = all.map(|n| (plain(n), n)).collect();
    let near = text::closest(&wanted, plains.iter().map(|(plain, _)| &**plain));
    let closest = plains.iter().find(|(plain, _)| Some(&**plain) == near).map(|(_, n)| *n);
    let hint = closest.map_or_else(String::new, |closest| {
        let how = if decoders.clone().any(|d| d == closest) { how } else { "" };
        format!("; the closest name is `{closest}`{how}")
    });
    ZooError::Unknown { name: name.to_owned(), hint }
}

/// The layer list of a name such as `resnet50`, `BERT-base`, or `bert_base@384` with another
/// sequence length (image edge for the convolutional networks).
///
/// # Errors
/// No such model, or a size that it cannot take.
pub fn find(name: &str) -> Result<ModelSpec, ZooError> {
    let Some((base, size)) = name.split_once('@') else {
        return Ok(info(name)?.spec());
    };
    let model = info(base)?;
    let no_size = || ZooError::NoSize { name: name.to_owned(), unit: model.input.unit() };
    model.spec_at(size.trim().parse().map_err(|_| no_size())?)
}
