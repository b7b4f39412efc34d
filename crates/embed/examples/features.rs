//! Answers requests for what a network makes of a tensor, so that a script can compare it with other implementations.
//!
//! Reads lines `WEIGHTS ARCH INPUT OUTPUT`: a weight file, an architecture, a safetensors file with the images `x`
//! (n, 3, s, s), and where to write `features`, as training computes them, and `unit`, the vectors as searches get them.
//! Writes a line when the answer is there: `ok`, or what went wrong.

use std::collections::HashMap;
use std::io::{BufRead, Write};

use candle_core::{Device, Tensor};
use semblance_embed::{Embedder, ModelSource};

fn answer(line: &str) -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [weights, arch, input, output] = words[..] else {
        return Err("a request is WEIGHTS ARCH INPUT OUTPUT".into());
    };
    let x = candle_core::safetensors::load(input, &Device::Cpu)?.remove("x").ok_or("no tensor x")?;
    let (n, _, _, side) = x.dims4()?;
    let crop = Some(side as u32);
    let embedder =
        Embedder::open(&ModelSource { arch: Some(arch.parse()?), crop, ..ModelSource::new(weights) })?;
    let unit = embedder.embed(&x.flatten_all()?.to_vec1::<f32>()?, n)?;
    let unit = Tensor::from_vec(unit, (n, embedder.dim()), &Device::Cpu)?;
    let tensors = HashMap::from([("features", embedder.features(&x, false)?), ("unit", unit)]);
    candle_core::safetensors::save(&tensors, output)?;
    Ok(())
}

fn main() -> std::io::Result<()> {
    for line in std::io::stdin().lock().lines() {
        let outcome = answer(&line?).map_or_else(|error| error.to_string(), |()| "ok".to_owned());
        println!("{outcome}");
        std::io::stdout().flush()?;
    }
    Ok(())
}
