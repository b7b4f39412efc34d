//! `semblance export`: a model for other programs.

use anyhow::{Context as _, bail};
use semblance_embed::{Embedder, onnx, timm};
use semblance_query::export;
use serde_json::json;

use crate::exit::Exit;
use crate::export_args::{ExportFormat, ExportModelArgs};
use crate::inputs;
use crate::printer::Printer;

pub(crate) fn run(args: &ExportModelArgs, printer: Printer) -> anyhow::Result<Exit> {
    if args.without_head && args.format == ExportFormat::Onnx {
        bail!("--without-head is for safetensors: an ONNX file has a place for every head");
    }
    let embedder = Embedder::open(&inputs::required_model(&args.model)?)?;
    let files = match args.format {
        ExportFormat::Safetensors => {
            export::check_folder(&args.out)?;
            let save = if args.without_head { timm::save_backbone } else { timm::save };
            save(&embedder, &args.out)?;
            vec![args.out.join("model.safetensors"), args.out.join("config.json")]
        }
        ExportFormat::Onnx => {
            let bytes = onnx::to_onnx(&embedder)?;
            export::prepare_folder(&args.out)?;
            let (path, partial) = (args.out.join("model.onnx"), args.out.join(".model.onnx.partial"));
            std::fs::write(&partial, bytes)
                .and_then(|()| std::fs::rename(&partial, &path))
                .with_context(|| format!("cannot write {}", path.display()))?;
            vec![path]
        }
    };
    let config = embedder.config();
    let dim = if args.without_head { embedder.feature_dim() } else { embedder.dim() };
    let summary = json!({
        "files": files, "arch": config.arch, "head": config.head, "dim": dim, "size": config.transform.crop,
        "fingerprint": embedder.fingerprint(), "without_head": args.without_head,
    });
    printer.result(&summary, |_| {
        let names: String = files.iter().map(|file| format!("  {}\n", file.display())).collect();
        format!(
            "{}{} to {dim} numbers, {} pixels wide\n{names}",
            config.arch,
            if args.without_head { " without its head" } else { "" },
            config.transform.crop
        )
    })?;
    Ok(Exit::Done)
}
