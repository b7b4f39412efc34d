//! Memory of large pages, for what is read here and there: with pages of 4 KiB the processor waits for its page tables
//! at nearly every vector, most of all in a virtual machine.

use std::io;

use memmap2::MmapMut;
use rayon::prelude::*;

/// Size of a large page.
const LARGE: usize = 2 << 20;

/// Zeroed memory, of large pages where the system grants them.
pub(crate) fn allocate(bytes: usize) -> io::Result<MmapMut> {
    let memory = MmapMut::map_anon(bytes.next_multiple_of(LARGE).max(LARGE))?;
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}

/// A copy, made on all threads.
pub(crate) fn copy(bytes: &[u8]) -> io::Result<MmapMut> {
    let mut memory = allocate(bytes.len())?;
    let part = bytes.len().div_ceil(rayon::current_num_threads().max(1)).next_multiple_of(LARGE).max(LARGE);
    memory
        .par_chunks_mut(part)
        .zip(bytes.par_chunks(part))
        .for_each(|(to, from)| to[..from.len()].copy_from_slice(from));
    Ok(memory)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_copy_is_the_same() {
        for len in [0, 1, super::LARGE - 1, super::LARGE, 3 * super::LARGE + 77] {
            let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            assert!(super::copy(&bytes).unwrap()[..len] == bytes[..]);
        }
    }
}
