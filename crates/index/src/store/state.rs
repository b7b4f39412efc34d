//! The counters of a store.

/// Numbers that change with every write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Id the next new item gets.
    pub(crate) next_id: u64,
    /// Number of the last write.
    pub(crate) sequence: u64,
    /// Items in the store.
    pub(crate) items: u64,
}

impl State {
    pub(super) fn encode(self) -> Vec<u8> {
        [self.next_id, self.sequence, self.items].iter().flat_map(|n| n.to_le_bytes()).collect()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut numbers = bytes.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().expect("8 bytes")));
        Some(Self { next_id: numbers.next()?, sequence: numbers.next()?, items: numbers.next()? })
    }
}
