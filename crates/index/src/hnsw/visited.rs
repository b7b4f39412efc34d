//! Which nodes a walk has met, one bit each.

/// A set of nodes whose memory is kept from one walk to the next.
#[derive(Default)]
pub(crate) struct Visited {
    bits: Vec<u64>,
    /// The nodes whose bits are set: few beside all, so that they are cleared one by one.
    marked: Vec<u32>,
}

impl Visited {
    /// Empties the set, for a graph of so many nodes.
    pub(crate) fn begin(&mut self, nodes: usize) {
        for node in self.marked.drain(..) {
            self.bits[node as usize / 64] = 0;
        }
        if self.bits.len() < nodes.div_ceil(64) {
            self.bits.resize(nodes.div_ceil(64), 0);
        }
    }

    /// Marks nodes and leaves in the list those that were not marked before, each once.
    #[inline(always)]
    pub(crate) fn visit(&mut self, nodes: &mut Vec<u32>) {
        let mut fresh = 0;
        for at in 0..nodes.len() {
            // Without a branch: which of them are new is hard to foretell.
            let node = nodes[at];
            let word = &mut self.bits[node as usize / 64];
            nodes[fresh] = node;
            fresh += usize::from(*word >> (node % 64) & 1 == 0);
            *word |= 1 << (node % 64);
        }
        nodes.truncate(fresh);
        self.marked.extend_from_slice(nodes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_is_new_once_a_walk() {
        let mut visited = Visited::default();
        for walk in 0..3 {
            visited.begin(100 + 900 * walk);
            for (met, new) in
                [(vec![3, 64, 3, 99], vec![3, 64, 99]), (vec![99, 0, 64], vec![0]), (vec![], vec![])]
            {
                let mut nodes = met;
                visited.visit(&mut nodes);
                assert_eq!(nodes, new);
            }
        }
    }
}
