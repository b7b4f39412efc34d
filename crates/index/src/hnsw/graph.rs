//! The graph as it is searched: layers and links in flat arrays, in memory while built, mapped from a file after.
//!
//! A node has `2m` links on the ground layer, one row of whole cache lines a node, and `m` on each layer above it
//! reaches. Unused places at the end of a row hold [`NONE`].

use std::path::Path;

use bytemuck::Pod;
use memmap2::MmapMut;

use crate::codes::huge_pages;
use crate::error::{IndexError, Result};
use crate::segment::block_file::{BlockFile, BlockWriter};
use crate::segment::manifest::{FileEntry, FileRole};

/// No link, no node.
pub(crate) const NONE: u32 = u32::MAX;
/// Most nodes of a graph.
pub(crate) const MAX_NODES: usize = (1 << 31) - 1;
/// Highest layer of a graph.
pub(crate) const MAX_LEVEL: u8 = 30;

const MAGIC: u64 = u64::from_le_bytes(*b"SEMGRPH1");
const HEADER_WORDS: usize = 8;

/// A graph in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct GraphData {
    pub(crate) m: usize,
    /// A node of the highest layer, where every search begins; `NONE` for an empty graph.
    pub(crate) entry: u32,
    /// Highest layer of each node.
    pub(crate) levels: Vec<u8>,
    /// Links on the ground layer, [`ground_stride`] a node.
    pub(crate) ground: Vec<u32>,
    /// First place in `upper` of each node that reaches above the ground, `NONE` for others.
    pub(crate) upper_start: Vec<u32>,
    /// Links above the ground: for each such node, layer 1, layer 2, …, `m` places each.
    pub(crate) upper: Vec<u32>,
}

/// Places in the row of a node on the ground layer.
pub(crate) fn ground_stride(m: usize) -> usize {
    (2 * m).next_multiple_of(16)
}

impl GraphData {
    /// Nodes of these levels, without links.
    pub(crate) fn unlinked(m: usize, levels: Vec<u8>) -> Self {
        let mut places = 0u32;
        let upper_start = levels
            .iter()
            .map(|&level| {
                let start = places;
                places += u32::from(level) * m as u32;
                if level > 0 { start } else { NONE }
            })
            .collect();
        let entry = levels
            .iter()
            .enumerate()
            .max_by_key(|(i, l)| (**l, std::cmp::Reverse(*i)))
            .map_or(NONE, |(i, _)| i as u32);
        Self {
            m,
            entry,
            ground: vec![NONE; levels.len() * ground_stride(m)],
            upper: vec![NONE; places as usize],
            levels,
            upper_start,
        }
    }

    pub(crate) fn view(&self) -> GraphView<'_> {
        GraphView {
            m: self.m,
            stride: ground_stride(self.m),
            entry: self.entry,
            levels: &self.levels,
            ground: &self.ground,
            upper_start: &self.upper_start,
            upper: &self.upper,
        }
    }

    /// The same graph with node `order[i]` renamed to `i`.
    pub(crate) fn reordered(&self, order: &[u32]) -> Self {
        let mut name = vec![NONE; order.len()];
        for (new, &old) in order.iter().enumerate() {
            name[old as usize] = new as u32;
        }
        let rename = |&n: &u32| if n == NONE { NONE } else { name[n as usize] };
        let levels: Vec<u8> = order.iter().map(|&old| self.levels[old as usize]).collect();
        let mut graph = Self::unlinked(self.m, levels);
        let (from, stride) = (self.view(), ground_stride(self.m));
        for (new, &old) in order.iter().enumerate() {
            for (place, link) in graph.ground[new * stride..][..stride].iter_mut().zip(from.ground_row(old)) {
                *place = rename(link);
            }
            for level in 1..=self.levels[old as usize] {
                let start = graph.upper_start[new] as usize + usize::from(level - 1) * self.m;
                for (place, link) in
                    graph.upper[start..start + self.m].iter_mut().zip(from.upper_row(old, level))
                {
                    *place = rename(link);
                }
            }
        }
        graph.entry = rename(&self.entry);
        graph
    }

    /// Writes the graph to a file.
    pub(crate) fn write(&self, path: &Path) -> Result<FileEntry> {
        let mut file = BlockWriter::create(path)?;
        let header = [
            MAGIC,
            self.levels.len() as u64,
            self.m as u64,
            u64::from(self.entry),
            self.upper.len() as u64,
            0,
            0,
            0,
        ];
        file.write_pod(&header)?;
        file.write_pod(&self.ground)?;
        file.align()?;
        file.write_pod(&self.upper_start)?;
        file.align()?;
        file.write_pod(&self.upper)?;
        file.align()?;
        file.write(&self.levels)?;
        file.finish(FileRole::Graph)
    }
}

/// A graph, wherever it lies. Links are nodes or [`NONE`]; rows fit the number of nodes.
#[derive(Clone, Copy)]
pub(crate) struct GraphView<'a> {
    pub(crate) m: usize,
    stride: usize,
    pub(crate) entry: u32,
    levels: &'a [u8],
    ground: &'a [u32],
    upper_start: &'a [u32],
    upper: &'a [u32],
}

impl<'a> GraphView<'a> {
    pub(crate) fn nodes(&self) -> usize {
        self.levels.len()
    }

    /// Highest layer of a node.
    pub(crate) fn level(&self, node: u32) -> u8 {
        self.levels[node as usize]
    }

    /// Places of a node on the ground layer; links end at the first `NONE`.
    #[inline(always)]
    pub(crate) fn ground_row(&self, node: u32) -> &'a [u32] {
        &self.ground[node as usize * self.stride..][..self.stride]
    }

    /// Places of a node on a layer above the ground that it reaches.
    #[inline]
    pub(crate) fn upper_row(&self, node: u32, level: u8) -> &'a [u32] {
        let start = self.upper_start[node as usize] as usize + usize::from(level - 1) * self.m;
        &self.upper[start..start + self.m]
    }

    pub(crate) fn to_data(self) -> GraphData {
        GraphData {
            m: self.m,
            entry: self.entry,
            levels: self.levels.to_vec(),
            ground: self.ground.to_vec(),
            upper_start: self.upper_start.to_vec(),
            upper: self.upper.to_vec(),
        }
    }

    /// Finds what a search must be able to trust: every link is a node of that layer.
    fn fault(&self) -> Option<String> {
        let nodes = self.nodes() as u32;
        if nodes == 0 {
            return (self.entry != NONE).then(|| "an empty graph has an entry".into());
        }
        if self.entry >= nodes {
            return Some(format!("its entry {} is no node", self.entry));
        }
        if self.ground.iter().any(|&link| link >= nodes && link != NONE) {
            return Some("a link leads to no node".into());
        }
        let mut places = 0u64;
        for (node, &level) in self.levels.iter().enumerate() {
            let start = if level == 0 { NONE } else { places as u32 };
            if level > MAX_LEVEL || self.upper_start[node] != start {
                return Some(format!("the layers of node {node} are not right"));
            }
            places += u64::from(level) * self.m as u64;
            if places > self.upper.len() as u64 {
                return Some("the upper layers are cut short".into());
            }
            for layer in 1..=level {
                for &link in self.upper_row(node as u32, layer) {
                    if link != NONE && (link >= nodes || self.levels[link as usize] < layer) {
                        return Some(format!(
                            "a link of node {node} on layer {layer} leads to no node of that layer"
                        ));
                    }
                }
            }
        }
        None
    }
}

/// A graph mapped from its file.
pub(crate) struct Graph {
    file: BlockFile,
    nodes: usize,
    m: usize,
    entry: u32,
    upper: usize,
    /// A copy in memory, if wanted.
    resident: Option<MmapMut>,
}

impl Graph {
    /// Maps a graph, checks its checksums and that it can be searched safely.
    pub(crate) fn open(dir: &Path, entry: &FileEntry) -> Result<Self> {
        let file = BlockFile::open(dir, entry)?;
        file.check_all()?;
        let header = file.slice::<u64>(0, HEADER_WORDS)?;
        let (nodes, m, upper) = (header[1] as usize, header[2] as usize, header[4] as usize);
        if header[0] != MAGIC || !(2..=256).contains(&m) || nodes > MAX_NODES || header[3] > u64::from(NONE) {
            return Err(IndexError::damaged(file.path(), "its header is not right"));
        }
        let graph = Self { nodes, m, entry: header[3] as u32, upper, resident: None, file };
        let fault = graph.try_view()?.fault();
        match fault {
            Some(what) => Err(IndexError::damaged(graph.file.path(), what)),
            None => Ok(graph),
        }
    }

    fn try_view(&self) -> Result<GraphView<'_>> {
        let stride = ground_stride(self.m);
        let ground = HEADER_WORDS * 8;
        let upper_start = (ground + self.nodes * stride * 4).next_multiple_of(64);
        let upper = (upper_start + self.nodes * 4).next_multiple_of(64);
        let levels = (upper + self.upper.saturating_mul(4)).next_multiple_of(64);
        Ok(GraphView {
            m: self.m,
            stride,
            entry: self.entry,
            ground: self.section(ground, self.nodes * stride)?,
            upper_start: self.section(upper_start, self.nodes)?,
            upper: self.section(upper, self.upper)?,
            levels: self.section(levels, self.nodes)?,
        })
    }

    fn section<T: Pod>(&self, offset: usize, count: usize) -> Result<&[T]> {
        match &self.resident {
            Some(memory) => Ok(bytemuck::cast_slice(&memory[offset..offset + count * size_of::<T>()])),
            None => self.file.slice(offset, count),
        }
    }

    /// Copies the graph, found right before, into memory of large pages.
    pub(crate) fn make_resident(&mut self) {
        self.resident = huge_pages::copy(self.file.bytes()).ok();
        if self.resident.is_some() {
            self.file.give_back();
        }
    }

    pub(crate) fn view(&self) -> GraphView<'_> {
        self.try_view().expect("sections were found when the file was opened")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring of `n` nodes, every fourth of which reaches layer 1, every eighth layer 2.
    fn ring(n: u32) -> GraphData {
        let levels = (0..n).map(|i| if i % 8 == 0 { 2 } else { u8::from(i % 4 == 0) }).collect();
        let mut graph = GraphData::unlinked(2, levels);
        let stride = ground_stride(2);
        for i in 0..n {
            graph.ground[i as usize * stride] = (i + 1) % n;
            for level in 1..=graph.levels[i as usize] {
                let start = graph.upper_start[i as usize] as usize + usize::from(level - 1) * 2;
                graph.upper[start] = (i + 4 * u32::from(level)) % n;
            }
        }
        graph
    }

    #[test]
    fn a_graph_comes_back_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        for graph in [ring(32), GraphData::unlinked(5, vec![])] {
            let entry = graph.write(&dir.path().join("graph")).unwrap();
            let read = Graph::open(dir.path(), &entry).unwrap();
            assert_eq!(read.view().to_data(), graph);
            assert_eq!(read.view().entry, graph.entry);
        }
    }

    #[test]
    fn links_that_lead_nowhere_are_refused_even_with_a_right_checksum() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |change: fn(&mut GraphData)| {
            let mut graph = ring(32);
            change(&mut graph);
            let entry = graph.write(&dir.path().join("graph")).unwrap();
            Graph::open(dir.path(), &entry).err().unwrap().to_string()
        };
        assert!(refused(|g| g.ground[0] = 32).contains("leads to no node"));
        assert!(refused(|g| g.entry = 32).contains("entry"));
        assert!(refused(|g| g.upper[0] = 1).contains("no node of that layer"));
        assert!(refused(|g| g.levels[1] = 9).contains("layers"));
        assert!(refused(|g| g.upper_start[0] = NONE).contains("layers"));
        assert!(refused(|g| g.upper.truncate(4)).contains("cut short"));
    }

    #[test]
    fn renaming_nodes_keeps_the_links() {
        let graph = ring(16);
        let order: Vec<u32> = (0..16).map(|i| (i * 5 + 3) % 16).collect();
        let renamed = graph.reordered(&order);
        for new in 0..16u32 {
            let old = order[new as usize];
            let back: Vec<u32> = renamed
                .view()
                .ground_row(new)
                .iter()
                .filter(|&&l| l != NONE)
                .map(|&l| order[l as usize])
                .collect();
            let want: Vec<u32> =
                graph.view().ground_row(old).iter().copied().filter(|&l| l != NONE).collect();
            assert_eq!(back, want);
            assert_eq!(renamed.levels[new as usize], graph.levels[old as usize]);
        }
        assert_eq!(order[renamed.entry as usize], graph.entry);
        let mut inverse = vec![0; 16];
        order.iter().enumerate().for_each(|(new, &old)| inverse[old as usize] = new as u32);
        assert_eq!(renamed.reordered(&inverse), graph);
    }
}
