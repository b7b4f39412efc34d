//! Vision transformers with timm's names: ViT (Dosovitskiy et al. 2021, arXiv 2010.11929), DINOv2 (Oquab et al. 2023,
//! arXiv 2304.07193) and CLIP's image tower (Radford et al. 2021, arXiv 2103.00020), which differ by a few settings.

use candle_core::{ModuleT, Result, Tensor, Var};

use super::position::resample;
use crate::layer::{Attention, Gelu, LayerNorm, Linear, PatchConv, project};
use crate::onnx::{Edge, Graph};
use crate::params::{Init, Scope, value};

/// What distinguishes one vision transformer from another.
#[derive(Debug, Clone, PartialEq)]
pub struct VitConfig {
    /// Width and height of the images whose position embeddings are stored; others are interpolated.
    pub image: usize,
    /// Width and height of a patch.
    pub patch: usize,
    /// Values of a token.
    pub dim: usize,
    /// Blocks.
    pub depth: usize,
    /// Heads of each attention; they divide `dim`.
    pub heads: usize,
    /// Start of the learned factor of each branch (LayerScale: Touvron et al. 2021, arXiv 2103.17239), where there is
    /// one.
    pub layer_scale: Option<f32>,
    /// Whether tokens are normalised before the first block; patches then have no bias (CLIP).
    pub pre_norm: bool,
    /// The activation.
    pub gelu: Gelu,
    /// Added to the variance by the norms.
    pub eps: f64,
    /// Size of the projection behind the last norm, where there is one (CLIP).
    pub projection: Option<usize>,
}

impl VitConfig {
    /// The original for images of 224 pixels, with patches of 16; 64 values a head.
    pub fn vit(dim: usize, depth: usize) -> Self {
        Self {
            image: 224,
            patch: 16,
            dim,
            depth,
            heads: dim / 64,
            layer_scale: None,
            pre_norm: false,
            gelu: Gelu::Exact,
            eps: 1e-6,
            projection: None,
        }
    }

    /// DINOv2: patches of 14 pixels, LayerScale, position embeddings for 518 pixels.
    pub fn dinov2(dim: usize, depth: usize) -> Self {
        Self { image: 518, patch: 14, layer_scale: Some(1e-5), ..Self::vit(dim, depth) }
    }

    /// CLIP's image tower, for images of 224 pixels.
    pub fn clip(dim: usize, depth: usize, patch: usize, projection: usize, gelu: Gelu) -> Self {
        let projection = Some(projection);
        Self { patch, pre_norm: true, gelu, eps: 1e-5, projection, ..Self::vit(dim, depth) }
    }
}

/// Attention and a two-layer perceptron, each on normalised tokens and added to them.
#[derive(Debug, Clone)]
struct Block {
    norms: [LayerNorm; 2],
    attention: Attention,
    widen: Linear,
    narrow: Linear,
    scales: Option<[Var; 2]>,
    gelu: Gelu,
}

impl Block {
    fn new(config: &VitConfig, scope: &Scope) -> Result<Self> {
        let dim = config.dim;
        let norm = |name: &str| LayerNorm::new(dim, config.eps, &scope.at(name));
        let scale = |name: &str, start| scope.at(name).parameter("gamma", dim, Init::Const(start));
        let scales = config.layer_scale.map(|start| Result::Ok([scale("ls1", start)?, scale("ls2", start)?]));
        let mlp = scope.at("mlp");
        Ok(Self {
            norms: [norm("norm1")?, norm("norm2")?],
            attention: Attention::new(dim, config.heads, &scope.at("attn"))?,
            widen: Linear::narrow(dim, 4 * dim, &mlp.at("fc1"))?,
            narrow: Linear::narrow(4 * dim, dim, &mlp.at("fc2"))?,
            scales: scales.transpose()?,
            gelu: config.gelu,
        })
    }

    fn add(&self, x: &Tensor, branch: Tensor, which: usize, train: bool) -> Result<Tensor> {
        match &self.scales {
            Some(scales) => x + branch.broadcast_mul(&value(&scales[which], train))?,
            None => x + branch,
        }
    }

    fn emit(&self, graph: &mut Graph, x: &Edge) -> Result<Edge> {
        let y = self.norms[0].emit(graph, x)?;
        let y = self.attention.emit(graph, &y)?;
        let x = self.emit_add(graph, x, y, 0)?;
        let y = self.norms[1].emit(graph, &x)?;
        let y = self.widen.emit(graph, &y)?;
        let y = self.gelu.emit(graph, &y);
        let y = self.narrow.emit(graph, &y)?;
        self.emit_add(graph, &x, y, 1)
    }

    fn emit_add(&self, graph: &mut Graph, x: &Edge, mut branch: Edge, which: usize) -> Result<Edge> {
        if let Some(scales) = &self.scales {
            let scale = graph.constant(&scales[which])?;
            branch = graph.mul(&branch, &scale);
        }
        Ok(graph.add(x, &branch))
    }
}

impl ModuleT for Block {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let y = self.attention.forward(&self.norms[0].forward(x, train)?, train)?;
        let x = self.add(x, y, 0, train)?;
        let y = self.widen.forward_t(&self.norms[1].forward(&x, train)?, train)?;
        let y = self.narrow.forward_t(&self.gelu.forward(&y)?, train)?;
        self.add(&x, y, 1, train)
    }
}

/// A vision transformer up to its last norm, or the projection behind it.
#[derive(Debug, Clone)]
pub struct Vit {
    config: VitConfig,
    patches: PatchConv,
    class_token: Var,
    positions: Var,
    pre_norm: Option<LayerNorm>,
    blocks: Vec<Block>,
    norm: LayerNorm,
    projection: Option<Var>,
}

impl Vit {
    /// Builds the network with its tensors registered in `scope`.
    pub fn new(config: &VitConfig, scope: &Scope) -> Result<Self> {
        let (dim, side) = (config.dim, config.image / config.patch);
        let stem = scope.at("patch_embed").at("proj");
        let patches = PatchConv::new(3, dim, config.patch, !config.pre_norm, &stem)?;
        let norm = |name: &str| LayerNorm::new(dim, config.eps, &scope.at(name));
        let blocks = (0..config.depth).map(|i| Block::new(config, &scope.at("blocks").at(i)));
        let projection = config.projection.map(|out| {
            let std = (dim as f32).sqrt().recip();
            scope.at("head").parameter("weight", (out, dim), Init::Normal { std })
        });
        Ok(Self {
            patches,
            class_token: scope.parameter("cls_token", (1, 1, dim), Init::Normal { std: 1e-6 })?,
            positions: scope.parameter("pos_embed", (1, 1 + side * side, dim), Init::Normal { std: 0.02 })?,
            pre_norm: config.pre_norm.then(|| norm("norm_pre")).transpose()?,
            blocks: blocks.collect::<Result<_>>()?,
            norm: norm("norm")?,
            projection: projection.transpose()?,
            config: config.clone(),
        })
    }

    /// Values of a token when it comes out.
    pub fn feature_dim(&self) -> usize {
        self.config.projection.unwrap_or(self.config.dim)
    }

    /// Position embeddings of the class token and of `grid` patches.
    fn positions(&self, grid: (usize, usize), train: bool) -> Result<Tensor> {
        let all = value(&self.positions, train);
        let side = self.config.image / self.config.patch;
        if grid == (side, side) {
            return Ok(all);
        }
        let patches = resample(&all.narrow(1, 1, side * side)?.contiguous()?, (side, side), grid)?;
        Tensor::cat(&[&all.narrow(1, 0, 1)?, &patches], 1)
    }

    /// How many patches of `h × w` pixels there are.
    fn grid(&self, h: usize, w: usize) -> Result<(usize, usize)> {
        let patch = self.config.patch;
        if h == 0 || w == 0 || !h.is_multiple_of(patch) || !w.is_multiple_of(patch) {
            candle_core::bail!("images of {h} × {w} pixels do not divide into patches of {patch} × {patch}")
        }
        Ok((h / patch, w / patch))
    }

    /// Writes the network into an ONNX graph: tokens, the class token first. Position embeddings are interpolated to the
    /// size of the graph's images and, with the class token, one constant.
    pub(crate) fn emit(&self, graph: &mut Graph, x: &Edge) -> Result<Edge> {
        let positions = self.positions(self.grid(graph.side(), graph.side())?, false)?;
        let class = (positions.narrow(1, 0, 1)? + self.class_token.as_detached_tensor())?;
        let others = positions.narrow(1, 1, positions.dim(1)? - 1)?;
        let places = graph.constant(&Tensor::cat(&[&class, &others], 1)?)?;
        let map = self.patches.emit(graph, x)?;
        let patches = graph.reshape(&map, &[0, self.config.dim as i64, -1]);
        let patches = graph.transpose(&patches, &[0, 2, 1]);
        let tokens = graph.token_before(&patches);
        let mut x = graph.add(&tokens, &places);
        if let Some(norm) = &self.pre_norm {
            x = norm.emit(graph, &x)?;
        }
        for block in &self.blocks {
            x = block.emit(graph, &x)?;
        }
        let x = self.norm.emit(graph, &x)?;
        match &self.projection {
            Some(projection) => graph.linear(&x, projection, None),
            None => Ok(x),
        }
    }
}

impl ModuleT for Vit {
    /// `(n, 3, h, w)` → `(n, 1 + patches, dim)`, the class token first. Sides are multiples of the patch.
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let (n, _, h, w) = x.dims4()?;
        let (grid, dim) = (self.grid(h, w)?, self.config.dim);
        let map = self.patches.forward(x, train)?;
        let class = value(&self.class_token, train).broadcast_as((n, 1, dim))?;
        let x = Tensor::cat(&[&class, &map.flatten_from(2)?.transpose(1, 2)?], 1)?;
        let mut x = x.broadcast_add(&self.positions(grid, train)?)?;
        if let Some(norm) = &self.pre_norm {
            x = norm.forward(&x, train)?;
        }
        for block in &self.blocks {
            x = block.forward_t(&x, train)?;
        }
        let x = self.norm.forward(&x, train)?;
        match &self.projection {
            Some(projection) => project(&x, &value(projection, train)),
            None => Ok(x),
        }
    }
}

#[cfg(test)]
#[path = "vit_tests.rs"]
mod tests;
