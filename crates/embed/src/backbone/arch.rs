//! The architectures there are, their names and how they want their photographs.

use std::fmt;
use std::str::FromStr;

use candle_core::Result;
use serde::{Deserialize, Serialize};

use super::{Backbone, ConvNext, ConvNextConfig, MobileNetV2, ResNet, ResNetConfig, Vit, VitConfig};
use crate::error::EmbedError;
use crate::layer::Gelu;
use crate::params::Scope;
use crate::transform::{EvalTransform, Interpolation};

/// A network architecture, by torchvision's or timm's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Arch {
    /// A narrow ten-layer residual network for small images (this project's own): trains in minutes on a CPU.
    ResNet10Tiny,
    /// ResNet-18 (He et al. 2015, arXiv 1512.03385).
    ResNet18,
    /// ResNet-34.
    ResNet34,
    /// ResNet-50 with the stride on the 3×3 convolution ("v1.5"), as torchvision and the Paddle original have it.
    ResNet50,
    /// ResNet-101.
    ResNet101,
    /// ResNet-152.
    ResNet152,
    /// MobileNetV2 1.0 (Sandler et al. 2018, arXiv 1801.04381).
    MobileNetV2,
    /// ConvNeXt-T (Liu et al. 2022, arXiv 2201.03545).
    ConvNextTiny,
    /// ConvNeXt-S.
    ConvNextSmall,
    /// ConvNeXt-B.
    ConvNextBase,
    /// ViT-Ti/16 (Touvron et al. 2021, arXiv 2012.12877, for the size).
    VitTiny16,
    /// ViT-S/16.
    VitSmall16,
    /// ViT-B/16 (Dosovitskiy et al. 2021, arXiv 2010.11929).
    VitBase16,
    /// ViT-L/16.
    VitLarge16,
    /// DINOv2 ViT-S/14 (Oquab et al. 2023, arXiv 2304.07193).
    DinoV2Small,
    /// DINOv2 ViT-B/14.
    DinoV2Base,
    /// DINOv2 ViT-L/14.
    DinoV2Large,
    /// CLIP's image tower ViT-B/32 (Radford et al. 2021, arXiv 2103.00020) with the approximate GELU of OpenAI's
    /// weights.
    ClipBase32,
    /// CLIP ViT-B/16, approximate GELU.
    ClipBase16,
    /// CLIP ViT-L/14, approximate GELU.
    ClipLarge14,
    /// CLIP ViT-B/32 with the exact GELU of LAION's weights.
    ClipBase32Gelu,
    /// CLIP ViT-B/16, exact GELU.
    ClipBase16Gelu,
    /// CLIP ViT-L/14, exact GELU.
    ClipLarge14Gelu,
}

/// What architectures have in common: names of tensors, how photographs are prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Residual networks.
    ResNet,
    /// MobileNetV2.
    MobileNetV2,
    /// ConvNeXt.
    ConvNext,
    /// The original vision transformers.
    Vit,
    /// Vision transformers with DINOv2's settings.
    DinoV2,
    /// CLIP's image towers.
    Clip,
}

/// Every architecture with its name.
const NAMES: [(Arch, &str); 23] = [
    (Arch::ResNet10Tiny, "resnet10_tiny"),
    (Arch::ResNet18, "resnet18"),
    (Arch::ResNet34, "resnet34"),
    (Arch::ResNet50, "resnet50"),
    (Arch::ResNet101, "resnet101"),
    (Arch::ResNet152, "resnet152"),
    (Arch::MobileNetV2, "mobilenet_v2"),
    (Arch::ConvNextTiny, "convnext_tiny"),
    (Arch::ConvNextSmall, "convnext_small"),
    (Arch::ConvNextBase, "convnext_base"),
    (Arch::VitTiny16, "vit_tiny_patch16_224"),
    (Arch::VitSmall16, "vit_small_patch16_224"),
    (Arch::VitBase16, "vit_base_patch16_224"),
    (Arch::VitLarge16, "vit_large_patch16_224"),
    (Arch::DinoV2Small, "vit_small_patch14_dinov2"),
    (Arch::DinoV2Base, "vit_base_patch14_dinov2"),
    (Arch::DinoV2Large, "vit_large_patch14_dinov2"),
    (Arch::ClipBase32, "vit_base_patch32_clip_quickgelu_224"),
    (Arch::ClipBase16, "vit_base_patch16_clip_quickgelu_224"),
    (Arch::ClipLarge14, "vit_large_patch14_clip_quickgelu_224"),
    (Arch::ClipBase32Gelu, "vit_base_patch32_clip_224"),
    (Arch::ClipBase16Gelu, "vit_base_patch16_clip_224"),
    (Arch::ClipLarge14Gelu, "vit_large_patch14_clip_224"),
];

/// Other projects' names for them, in lower case with underscores.
const ALIASES: [(&str, Arch); 17] = [
    ("mobilenetv2_100", Arch::MobileNetV2),
    ("vit_b_16", Arch::VitBase16),
    ("vit_l_16", Arch::VitLarge16),
    ("vit_base_patch16", Arch::VitBase16),
    ("resnet_18", Arch::ResNet18),
    ("resnet_34", Arch::ResNet34),
    ("resnet_50", Arch::ResNet50),
    ("resnet_101", Arch::ResNet101),
    ("resnet_152", Arch::ResNet152),
    ("dinov2_small", Arch::DinoV2Small),
    ("dinov2_base", Arch::DinoV2Base),
    ("dinov2_large", Arch::DinoV2Large),
    ("dinov2_vits14", Arch::DinoV2Small),
    ("dinov2_vitb14", Arch::DinoV2Base),
    ("dinov2_vitl14", Arch::DinoV2Large),
    ("clip_vit_base_patch32", Arch::ClipBase32),
    ("clip_vit_large_patch14", Arch::ClipLarge14),
];

/// Mean and standard deviation that CLIP was trained with.
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

impl Arch {
    /// Every architecture.
    pub const ALL: [Self; NAMES.len()] = {
        let mut all = [Self::ResNet10Tiny; NAMES.len()];
        let mut i = 0;
        while i < all.len() {
            all[i] = NAMES[i].0;
            i += 1;
        }
        all
    };

    /// The name used in configuration files and wherever users name an architecture.
    pub fn name(self) -> &'static str {
        NAMES[self as usize].1
    }

    /// All names, separated by commas, for messages.
    pub fn known() -> String {
        NAMES.map(|(_, name)| name).join(", ")
    }

    /// The family it is of.
    pub fn family(self) -> Family {
        match self {
            Self::ResNet10Tiny | Self::ResNet18 | Self::ResNet34 => Family::ResNet,
            Self::ResNet50 | Self::ResNet101 | Self::ResNet152 => Family::ResNet,
            Self::MobileNetV2 => Family::MobileNetV2,
            Self::ConvNextTiny | Self::ConvNextSmall | Self::ConvNextBase => Family::ConvNext,
            Self::VitTiny16 | Self::VitSmall16 | Self::VitBase16 | Self::VitLarge16 => Family::Vit,
            Self::DinoV2Small | Self::DinoV2Base | Self::DinoV2Large => Family::DinoV2,
            Self::ClipBase32 | Self::ClipBase16 | Self::ClipLarge14 => Family::Clip,
            Self::ClipBase32Gelu | Self::ClipBase16Gelu | Self::ClipLarge14Gelu => Family::Clip,
        }
    }

    /// The settings of a vision transformer.
    pub fn vit(self) -> Option<VitConfig> {
        let clip = |dim, depth, patch, projection, gelu| VitConfig::clip(dim, depth, patch, projection, gelu);
        Some(match self {
            Self::VitTiny16 => VitConfig::vit(192, 12),
            Self::VitSmall16 => VitConfig::vit(384, 12),
            Self::VitBase16 => VitConfig::vit(768, 12),
            Self::VitLarge16 => VitConfig::vit(1024, 24),
            Self::DinoV2Small => VitConfig::dinov2(384, 12),
            Self::DinoV2Base => VitConfig::dinov2(768, 12),
            Self::DinoV2Large => VitConfig::dinov2(1024, 24),
            Self::ClipBase32 => clip(768, 12, 32, 512, Gelu::Quick),
            Self::ClipBase16 => clip(768, 12, 16, 512, Gelu::Quick),
            Self::ClipLarge14 => clip(1024, 24, 14, 768, Gelu::Quick),
            Self::ClipBase32Gelu => clip(768, 12, 32, 512, Gelu::Exact),
            Self::ClipBase16Gelu => clip(768, 12, 16, 512, Gelu::Exact),
            Self::ClipLarge14Gelu => clip(1024, 24, 14, 768, Gelu::Exact),
            _ => return None,
        })
    }

    /// The side of a patch that images must divide into, where the network has patches.
    pub fn patch(self) -> Option<usize> {
        self.vit().map(|config| config.patch)
    }

    /// How photographs are prepared for it unless the caller chooses otherwise: as those who trained it evaluate it.
    pub fn transform(self) -> EvalTransform {
        let convolutional = EvalTransform::default();
        let bicubic = EvalTransform { interpolation: Interpolation::Bicubic, ..convolutional.clone() };
        match self.family() {
            Family::ResNet | Family::MobileNetV2 => convolutional,
            // DINOv2's own evaluation sees 224 pixels, although its positions are stored for 518.
            Family::ConvNext | Family::DinoV2 => bicubic,
            Family::Vit => EvalTransform { resize: 248, mean: [0.5; 3], std: [0.5; 3], ..bicubic },
            Family::Clip => EvalTransform { resize: 224, mean: CLIP_MEAN, std: CLIP_STD, ..bicubic },
        }
    }

    /// Builds the network with its tensors registered in `scope`.
    pub fn build(self, scope: &Scope) -> Result<Backbone> {
        if let Some(config) = self.vit() {
            return Ok(Backbone::Vit(Vit::new(&config, scope)?));
        }
        let resnet = |config: ResNetConfig| Ok(Backbone::ResNet(ResNet::new(&config, scope)?));
        let convnext = |depths, width| {
            let config = ConvNextConfig { depths, width };
            Ok(Backbone::ConvNext(ConvNext::new(&config, scope)?))
        };
        match self {
            Self::ResNet18 => resnet(ResNetConfig::basic([2, 2, 2, 2])),
            Self::ResNet34 => resnet(ResNetConfig::basic([3, 4, 6, 3])),
            Self::ResNet50 => resnet(ResNetConfig::bottleneck([3, 4, 6, 3])),
            Self::ResNet101 => resnet(ResNetConfig::bottleneck([3, 4, 23, 3])),
            Self::ResNet152 => resnet(ResNetConfig::bottleneck([3, 8, 36, 3])),
            Self::MobileNetV2 => Ok(Backbone::MobileNetV2(MobileNetV2::new(scope)?)),
            Self::ConvNextTiny => convnext([3, 3, 9, 3], 96),
            Self::ConvNextSmall => convnext([3, 3, 27, 3], 96),
            Self::ConvNextBase => convnext([3, 3, 27, 3], 128),
            Self::ResNet10Tiny => resnet(ResNetConfig::tiny()),
            other => candle_core::bail!("{other} cannot be built"),
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Arch {
    type Err = EmbedError;

    /// Accepts our names and those of timm, torchvision, Hugging Face and DINOv2's authors (`mobilenetv2_100`,
    /// `vit_b_16`, `dinov2-small`), with or without timm's tag behind a dot. The tag `openai` means OpenAI's approximate
    /// GELU.
    fn from_str(name: &str) -> std::result::Result<Self, EmbedError> {
        let lower = name.to_lowercase().replace('-', "_");
        let (bare, tag) = lower.split_once('.').unwrap_or((&lower, ""));
        let openai = tag.starts_with("openai").then(|| bare.replace("_clip_224", "_clip_quickgelu_224"));
        let bare = openai.as_deref().unwrap_or(bare);
        let unknown = || EmbedError::UnknownArch { name: name.to_owned(), known: Self::known() };
        let own = NAMES.into_iter().find(|(_, own)| *own == bare).map(|(arch, _)| arch);
        let alias = || ALIASES.into_iter().find(|(alias, _)| *alias == bare).map(|(_, arch)| arch);
        own.or_else(alias).ok_or_else(unknown)
    }
}

impl TryFrom<String> for Arch {
    type Error = EmbedError;

    fn try_from(name: String) -> std::result::Result<Self, EmbedError> {
        name.parse()
    }
}

impl From<Arch> for String {
    fn from(arch: Arch) -> Self {
        arch.name().to_owned()
    }
}
