//! Export of models as ONNX files, for other programs.
//!
//! The graph takes normalised pixels and gives unit vectors. Batch norms are folded into the convolutions before them, as
//! at inference here. Every piece of a network writes itself down by an `emit` beside its forward pass.

mod graph;
mod operator;
mod proto;

use prost::Message as _;

pub use graph::{Edge, Graph, INPUT, OUTPUT};

use crate::embedder::Embedder;
use crate::error::Result;

/// The operators' version the graph is written in.
const OPSET: i64 = 17;
/// The format's version that goes with it.
const IR_VERSION: i64 = 8;

/// The file's bytes. Its metadata says how to make pixels: `mean`, `std` (of values from 0 to 1), `size` (width and height
/// after `resize` of the short side and a centre crop), `transform` (all of it, as JSON); and which model it is: `arch`,
/// `dim`, `fingerprint`.
///
/// # Errors
/// [`EmbedError`](crate::EmbedError) of a tensor that cannot be read, or of a size that does not divide into patches.
pub fn to_onnx(embedder: &Embedder) -> Result<Vec<u8>> {
    let (config, transform) = (embedder.config(), embedder.transform());
    let mut graph = Graph::new(transform.crop as usize);
    let output = embedder.emit(&mut graph)?;
    let numbers = |values: [f32; 3]| values.map(|v| v.to_string()).join(",");
    let metadata = [
        ("mean", numbers(transform.mean)),
        ("std", numbers(transform.std)),
        ("size", transform.crop.to_string()),
        ("resize", transform.resize.to_string()),
        ("transform", serde_json::to_string(transform).unwrap_or_default()),
        ("arch", config.arch.to_string()),
        ("dim", embedder.dim().to_string()),
        ("fingerprint", embedder.fingerprint().to_owned()),
    ];
    let model = proto::Model {
        ir_version: IR_VERSION,
        producer_name: "semblance".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(graph.finish(&output, embedder.dim())),
        opset_import: vec![proto::OperatorSet { domain: String::new(), version: OPSET }],
        metadata_props: metadata.map(|(key, value)| proto::Entry { key: key.to_owned(), value }).into(),
    };
    Ok(model.encode_to_vec())
}

#[cfg(test)]
pub(crate) mod interpreter;

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::backbone::Arch;
    use crate::checkpoint::ModelConfig;
    use crate::embedder::DeviceKind;
    use crate::head::{HeadConfig, Pool};

    #[test]
    fn the_file_read_back_and_evaluated_gives_the_models_vectors() {
        let linear = HeadConfig::Linear { dim: 24 };
        let (neck, norm) = (HeadConfig::BatchNorm { dim: Some(8) }, HeadConfig::LayerNorm { dim: Some(8) });
        let mlp = HeadConfig::Mlp { dim: 8, hidden: vec![24], activation: crate::head::HeadActivation::Gelu };
        for (arch, pool, head) in [
            (Arch::ResNet10Tiny, None, linear.clone()),
            (Arch::ResNet10Tiny, Some(Pool::Gem { p: 2.5 }), neck),
            (Arch::ResNet18, None, HeadConfig::Pooled),
            (Arch::ResNet50, None, linear.clone()),
            (Arch::MobileNetV2, Some(Pool::Max), linear),
            (Arch::ConvNextTiny, None, norm),
            (Arch::VitTiny16, Some(Pool::ClassAndMean), mlp),
        ] {
            let mut config = ModelConfig { pool, ..ModelConfig::new(arch, head) };
            (config.transform.resize, config.transform.crop) = (72, 64);
            let mean = config.transform.mean.map(|v| v.to_string()).join(",");
            let mut embedder = Embedder::untrained(config, 3, DeviceKind::Cpu).unwrap();
            // Running statistics of real features, so that folding them matters.
            let x = Tensor::randn(0.2f32, 1.0, (4, 3, 64, 64), &Device::Cpu).unwrap();
            embedder.features(&x, true).unwrap();
            embedder.weights_changed().unwrap();

            let model = proto::Model::decode(to_onnx(&embedder).unwrap().as_slice()).unwrap();
            let said = |key: &str| model.metadata_props.iter().find(|e| e.key == key).unwrap().value.clone();
            assert_eq!((said("arch"), said("size")), (arch.to_string(), "64".to_owned()));
            assert_eq!(said("fingerprint"), embedder.fingerprint());
            assert_eq!(said("mean"), mean);
            assert_eq!(mean, if arch == Arch::VitTiny16 { "0.5,0.5,0.5" } else { "0.485,0.456,0.406" });
            let graph = model.graph.unwrap();
            for n in [1, 3] {
                let x = x.narrow(0, 0, n).unwrap();
                let pixels: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
                let wanted = embedder.embed(&pixels, n).unwrap();
                let found = interpreter::evaluate(&graph, &x);
                assert_eq!(found.dims(), [n, embedder.dim()], "{arch}");
                let found: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
                let worst = wanted.iter().zip(&found).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
                assert!(worst < 1e-4, "{arch}: {worst}");
            }
        }
    }
}
