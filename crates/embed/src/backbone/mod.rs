//! Networks from image batches to feature maps.

mod mobilenet;
mod resnet;

use std::fmt;
use std::str::FromStr;

use candle_core::{ModuleT, Result, Tensor};
use semblance_kernels::frozen::{Builder, Value};
use serde::{Deserialize, Serialize};

pub use mobilenet::MobileNetV2;
pub use resnet::{ResNet, ResNetConfig};

use crate::error::EmbedError;
use crate::onnx::{Edge, Graph};
use crate::params::Scope;

/// The architectures there are, by torchvision's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arch {
    /// A narrow ten-layer residual network for small images (this project's own): trains in minutes on a CPU.
    #[serde(rename = "resnet10_tiny")]
    ResNet10Tiny,
    /// ResNet-18 (He et al. 2015, arXiv 1512.03385).
    #[serde(rename = "resnet18")]
    ResNet18,
    /// ResNet-34.
    #[serde(rename = "resnet34")]
    ResNet34,
    /// ResNet-50 with the stride on the 3×3 convolution ("v1.5"), as torchvision and the Paddle original have it.
    #[serde(rename = "resnet50")]
    ResNet50,
    /// ResNet-101.
    #[serde(rename = "resnet101")]
    ResNet101,
    /// MobileNetV2 1.0 (Sandler et al. 2018, arXiv 1801.04381).
    #[serde(rename = "mobilenet_v2")]
    MobileNetV2,
}

impl Arch {
    /// Every architecture.
    pub const ALL: [Self; 6] = [
        Self::ResNet10Tiny,
        Self::ResNet18,
        Self::ResNet34,
        Self::ResNet50,
        Self::ResNet101,
        Self::MobileNetV2,
    ];

    /// The name used on the command line and in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResNet10Tiny => "resnet10_tiny",
            Self::ResNet18 => "resnet18",
            Self::ResNet34 => "resnet34",
            Self::ResNet50 => "resnet50",
            Self::ResNet101 => "resnet101",
            Self::MobileNetV2 => "mobilenet_v2",
        }
    }

    /// All names, separated by commas, for messages.
    pub fn known() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// Builds the network with its tensors registered in `scope`.
    pub fn build(self, scope: &Scope) -> Result<Backbone> {
        let resnet = |config: ResNetConfig| Ok(Backbone::ResNet(ResNet::new(&config, scope)?));
        match self {
            Self::ResNet10Tiny => resnet(ResNetConfig::tiny()),
            Self::ResNet18 => resnet(ResNetConfig::basic([2, 2, 2, 2])),
            Self::ResNet34 => resnet(ResNetConfig::basic([3, 4, 6, 3])),
            Self::ResNet50 => resnet(ResNetConfig::bottleneck([3, 4, 6, 3])),
            Self::ResNet101 => resnet(ResNetConfig::bottleneck([3, 4, 23, 3])),
            Self::MobileNetV2 => Ok(Backbone::MobileNetV2(MobileNetV2::new(scope)?)),
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

    /// Accepts our names and timm's (`mobilenetv2_100`), with or without timm's tag behind a dot.
    fn from_str(name: &str) -> std::result::Result<Self, EmbedError> {
        let bare = name.split('.').next().unwrap_or(name);
        let bare = if bare == "mobilenetv2_100" { "mobilenet_v2" } else { bare };
        let unknown = || EmbedError::UnknownArch { name: name.to_owned(), known: Self::known() };
        Self::ALL.into_iter().find(|arch| arch.name() == bare).ok_or_else(unknown)
    }
}

/// A network of one of the families: `(n, 3, h, w)` → feature map `(n, c, h', w')`.
#[derive(Debug, Clone)]
pub enum Backbone {
    /// The residual networks.
    ResNet(ResNet),
    /// MobileNetV2.
    MobileNetV2(MobileNetV2),
}

impl Backbone {
    /// Channels of the feature map.
    pub fn feature_dim(&self) -> usize {
        match self {
            Self::ResNet(net) => net.feature_dim(),
            Self::MobileNetV2(_) => MobileNetV2::FEATURE_DIM,
        }
    }

    /// Writes the network, as it is at inference, into an ONNX graph.
    pub(crate) fn emit(&self, graph: &mut Graph, x: Edge) -> Result<Edge> {
        match self {
            Self::ResNet(backbone) => backbone.emit(graph, x),
            Self::MobileNetV2(backbone) => backbone.emit(graph, x),
        }
    }

    /// Adds the network, as it is at inference, to a frozen one.
    pub(crate) fn freeze(&self, net: &mut Builder, x: Value) -> Result<Value> {
        match self {
            Self::ResNet(backbone) => backbone.freeze(net, x),
            Self::MobileNetV2(backbone) => backbone.freeze(net, x),
        }
    }
}

impl ModuleT for Backbone {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        match self {
            Self::ResNet(net) => net.forward_t(x, train),
            Self::MobileNetV2(net) => net.forward_t(x, train),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::params::ParamStore;

    #[test]
    fn every_name_is_understood() {
        for arch in Arch::ALL {
            assert_eq!(arch.name().parse::<Arch>().unwrap(), arch);
            assert_eq!(serde_json::to_value(arch).unwrap(), arch.name());
        }
        assert_eq!("mobilenetv2_100.ra_in1k".parse::<Arch>().unwrap(), Arch::MobileNetV2);
        let unknown = "resnet51".parse::<Arch>().unwrap_err().to_string();
        assert!(unknown.contains("resnet51") && unknown.contains("resnet50"), "{unknown}");
    }

    // torchvision: sum(p.numel() for p in m.parameters()) without the classifier.
    #[test]
    fn parameter_counts_are_torchvisions() {
        let counts = [
            (Arch::ResNet18, 11_176_512, 512),
            (Arch::ResNet34, 21_284_672, 512),
            (Arch::ResNet50, 23_508_032, 2048),
            (Arch::ResNet101, 42_500_160, 2048),
            (Arch::MobileNetV2, 2_223_872, 1280),
        ];
        for (arch, parameters, dim) in counts {
            let store = ParamStore::new(0, &Device::Cpu);
            let backbone = arch.build(&store.root()).unwrap();
            assert_eq!((store.parameter_count(""), backbone.feature_dim()), (parameters, dim), "{arch}");
        }
    }

    #[test]
    fn the_feature_map_is_a_thirty_second_of_the_image_in_both_modes() {
        for arch in [Arch::ResNet18, Arch::ResNet50, Arch::MobileNetV2] {
            let store = ParamStore::new(0, &Device::Cpu);
            let backbone = arch.build(&store.root()).unwrap();
            let x = Tensor::zeros((2, 3, 64, 96), DType::F32, &Device::Cpu).unwrap();
            for train in [false, true] {
                let y = backbone.forward_t(&x, train).unwrap();
                assert_eq!(y.dims(), [2, backbone.feature_dim(), 2, 3], "{arch}");
            }
        }
    }

    #[test]
    fn every_parameter_gets_a_gradient() {
        for arch in [Arch::ResNet10Tiny, Arch::ResNet50, Arch::MobileNetV2] {
            let store = ParamStore::new(3, &Device::Cpu);
            let backbone = arch.build(&store.root()).unwrap();
            let x = Tensor::randn(0f32, 1.0, (2, 3, 64, 64), &Device::Cpu).unwrap();
            let loss = backbone.forward_t(&x, true).unwrap().sqr().unwrap().mean_all().unwrap();
            let grads = loss.backward().unwrap();
            for (name, param) in store.entries("") {
                let learned = param.kind == crate::params::Kind::Parameter;
                assert_eq!(grads.get(&param.var).is_some(), learned, "{arch}: {name}");
            }
        }
    }
}
