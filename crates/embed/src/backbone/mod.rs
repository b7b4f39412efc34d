//! Networks from image batches to features.

mod arch;
#[cfg(test)]
mod check;
mod convnext;
mod mobilenet;
mod position;
mod resnet;
mod vit;

use candle_core::{ModuleT, Result, Tensor};
use semblance_kernels::frozen::{Builder, Value};

pub use arch::{Arch, Family};
pub use convnext::{ConvNext, ConvNextConfig};
pub use mobilenet::MobileNetV2;
pub use resnet::{ResNet, ResNetConfig};
pub use vit::{Vit, VitConfig};

use crate::onnx::{Edge, Graph};

/// A network of one of the families.
#[derive(Debug, Clone)]
pub enum Backbone {
    /// The residual networks.
    ResNet(ResNet),
    /// MobileNetV2.
    MobileNetV2(MobileNetV2),
    /// ConvNeXt.
    ConvNext(ConvNext),
    /// ViT, DINOv2 and CLIP's image tower.
    Vit(Vit),
}

/// What a backbone makes of a batch, before it is pooled: values, or their place in a graph being written.
#[derive(Debug, Clone)]
pub enum Features<T = Tensor> {
    /// `(n, c, h, w)`.
    Map(T),
    /// `(n, 1 + h · w, c)`, the class token first.
    Tokens(T),
}

impl Backbone {
    /// Channels of the features.
    pub fn feature_dim(&self) -> usize {
        match self {
            Self::ResNet(net) => net.feature_dim(),
            Self::MobileNetV2(_) => MobileNetV2::FEATURE_DIM,
            Self::ConvNext(net) => net.feature_dim(),
            Self::Vit(net) => net.feature_dim(),
        }
    }

    /// The features of images `(n, 3, h, w)`; with `train`, tracked for gradients.
    pub fn features(&self, images: &Tensor, train: bool) -> Result<Features> {
        Ok(match self {
            Self::ResNet(net) => Features::Map(net.forward_t(images, train)?),
            Self::MobileNetV2(net) => Features::Map(net.forward_t(images, train)?),
            Self::ConvNext(net) => Features::Map(net.forward_t(images, train)?),
            Self::Vit(net) => Features::Tokens(net.forward_t(images, train)?),
        })
    }

    /// What the network does to the pooled features `(n, c)`: ConvNeXt's last norm stands behind the pooling.
    pub fn finish(&self, pooled: Tensor, train: bool) -> Result<Tensor> {
        match self {
            Self::ConvNext(net) => net.finish(&pooled, train),
            Self::ResNet(_) | Self::MobileNetV2(_) | Self::Vit(_) => Ok(pooled),
        }
    }

    /// Writes the network, as it is at inference, into an ONNX graph.
    pub(crate) fn emit(&self, graph: &mut Graph, x: Edge) -> Result<Features<Edge>> {
        Ok(match self {
            Self::ResNet(net) => Features::Map(net.emit(graph, x)?),
            Self::MobileNetV2(net) => Features::Map(net.emit(graph, x)?),
            Self::ConvNext(net) => Features::Map(net.emit(graph, &x)?),
            Self::Vit(net) => Features::Tokens(net.emit(graph, &x)?),
        })
    }

    /// As [`finish`](Self::finish) in an ONNX graph.
    pub(crate) fn emit_finish(&self, graph: &mut Graph, pooled: Edge) -> Result<Edge> {
        match self {
            Self::ConvNext(net) => net.emit_finish(graph, &pooled),
            Self::ResNet(_) | Self::MobileNetV2(_) | Self::Vit(_) => Ok(pooled),
        }
    }

    /// Adds the network, as it is at inference, to a frozen one; `None` if it has layers that cannot be frozen.
    pub(crate) fn freeze(&self, net: &mut Builder, x: Value) -> Result<Option<Value>> {
        match self {
            Self::ResNet(backbone) => backbone.freeze(net, x).map(Some),
            Self::MobileNetV2(backbone) => backbone.freeze(net, x).map(Some),
            Self::ConvNext(_) | Self::Vit(_) => Ok(None),
        }
    }
}

impl Features {
    /// The same values, of which no gradient is asked.
    pub fn detach(&self) -> Self {
        match self {
            Self::Map(map) => Self::Map(map.detach()),
            Self::Tokens(tokens) => Self::Tokens(tokens.detach()),
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
        for (other, arch) in [
            ("mobilenetv2_100.ra_in1k", Arch::MobileNetV2),
            ("vit_small_patch14_dinov2.lvd142m", Arch::DinoV2Small),
            ("vit_base_patch32_clip_224.openai", Arch::ClipBase32),
            ("vit_base_patch32_clip_224.laion2b_e16", Arch::ClipBase32Gelu),
            ("clip-vit-base-patch32", Arch::ClipBase32),
            ("vit-base-patch16-224", Arch::VitBase16),
            ("vit_b_16", Arch::VitBase16),
            ("dinov2-large", Arch::DinoV2Large),
        ] {
            assert_eq!(other.parse::<Arch>().unwrap(), arch, "{other}");
        }
        let unknown = "resnet51".parse::<Arch>().unwrap_err().to_string();
        assert!(unknown.contains("resnet51") && unknown.contains("resnet50"), "{unknown}");
    }

    // torchvision and timm: sum(p.numel() for p in m.parameters()) without the classifier.
    // CLIP: with num_classes=512, without the bias that timm adds to the projection.
    #[test]
    fn parameter_counts_are_torchvisions_and_timms() {
        let counts = [
            (Arch::ResNet18, 11_176_512, 512),
            (Arch::ResNet34, 21_284_672, 512),
            (Arch::ResNet50, 23_508_032, 2048),
            (Arch::ResNet101, 42_500_160, 2048),
            (Arch::ResNet152, 58_143_808, 2048),
            (Arch::MobileNetV2, 2_223_872, 1280),
            (Arch::ConvNextTiny, 27_820_128, 768),
            (Arch::ConvNextBase, 87_566_464, 1024),
            (Arch::VitTiny16, 5_524_416, 192),
            (Arch::VitSmall16, 21_665_664, 384),
            (Arch::VitBase16, 85_798_656, 768),
            (Arch::DinoV2Small, 22_056_192, 384),
            (Arch::ClipBase32, 87_849_216, 512),
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
                let Features::Map(y) = backbone.features(&x, train).unwrap() else { panic!("no map") };
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
            let Features::Map(y) = backbone.features(&x, true).unwrap() else { panic!("no map") };
            let loss = y.sqr().unwrap().mean_all().unwrap();
            let grads = loss.backward().unwrap();
            for (name, param) in store.entries("") {
                let learned = param.kind == crate::params::Kind::Parameter;
                assert_eq!(grads.get(&param.var).is_some(), learned, "{arch}: {name}");
            }
        }
    }
}
