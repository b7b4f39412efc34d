//! Coefficients of the blocks of a scan, passed over code by code.

use super::huffman::{Bits, Stop, Table};
use super::scan::Fault;

/// Reads the blocks of one scan.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    pub(super) bits: Bits<'a>,
    /// Blocks from here on whose band is zero.
    end_of_band: u32,
    next_restart: u8,
}

impl<'a> Reader<'a> {
    /// A scan whose data starts at `at`.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, bits: Bits::new(bytes, at), end_of_band: 0, next_restart: 0 }
    }

    /// What a stop means: at the end of the file it is truncated.
    pub(super) fn fault(&self, stop: Stop) -> Fault {
        if stop == Stop::Exhausted && self.bits.at_end_of_file() { Fault::Truncated } else { Fault::Damaged }
    }

    /// Passes over the restart marker that must stand here.
    pub(super) fn restart(&mut self) -> Result<(), Fault> {
        let rest = std::mem::replace(&mut self.bits, Bits::new(self.bytes, self.bytes.len())).rest();
        let marker = [0xff, 0xd0 + self.next_restart];
        // Fill bytes may stand before a marker.
        let fill = self.bytes[rest.end..].iter().take_while(|byte| **byte == 0xff).count();
        let at = rest.end + fill.max(1) - 1;
        if at + 1 >= self.bytes.len() {
            return Err(Fault::Truncated);
        }
        if rest.start != rest.end || !self.bytes[at..].starts_with(&marker) {
            return Err(Fault::Damaged);
        }
        self.next_restart = (self.next_restart + 1) % 8;
        self.end_of_band = 0;
        self.bits = Bits::new(self.bytes, at + 2);
        Ok(())
    }

    /// The first coefficient of a block.
    pub(super) fn dc(&mut self, table: &Table) -> Result<(), Stop> {
        if self.bits.symbol(table)? > 15 { Err(Stop::Broken) } else { Ok(()) }
    }

    /// A block of a sequential JPEG.
    pub(super) fn block(&mut self, dc: &Table, ac: &Table) -> Result<(), Stop> {
        self.dc(dc)?;
        let mut k = 1;
        while k < 64 {
            let symbol = self.bits.symbol(ac)?;
            let (run, size) = (usize::from(symbol >> 4), symbol & 15);
            if size > 0 {
                k += run + 1;
                if k > 64 {
                    return Err(Stop::Broken);
                }
            } else if run == 15 {
                k += 16;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// A block's band of a progressive JPEG, in its first scan.
    pub(super) fn band(
        &mut self,
        table: &Table,
        first: usize,
        last: usize,
        nonzero: &mut u64,
    ) -> Result<(), Stop> {
        if self.end_of_band > 0 {
            self.end_of_band -= 1;
            return Ok(());
        }
        let mut k = first;
        while k <= last {
            let symbol = self.bits.symbol(table)?;
            let (run, size) = (usize::from(symbol >> 4), symbol & 15);
            if size > 0 {
                k += run;
                if k > last {
                    return Err(Stop::Broken);
                }
                *nonzero |= 1 << k;
                k += 1;
            } else if run == 15 {
                k += 16;
            } else {
                self.end_of_band = (1 << run) - 1 + self.bits.value(run as u32)?;
                break;
            }
        }
        Ok(())
    }

    /// A block's band of a progressive JPEG, in a scan that adds a bit to each coefficient (ITU-T T.81, G.1.2.3).
    pub(super) fn refine(
        &mut self,
        table: &Table,
        first: usize,
        last: usize,
        nonzero: &mut u64,
    ) -> Result<(), Stop> {
        let mut k = first;
        while self.end_of_band == 0 && k <= last {
            let symbol = self.bits.symbol(table)?;
            let (mut run, size) = (usize::from(symbol >> 4), symbol & 15);
            match size {
                0 if run < 15 => {
                    self.end_of_band = (1 << run) + self.bits.value(run as u32)?;
                    break;
                }
                0 | 1 => {}
                _ => return Err(Stop::Broken),
            }
            while k <= last {
                if *nonzero >> k & 1 == 1 {
                    self.bits.skip(1)?;
                } else if run == 0 {
                    break;
                } else {
                    run -= 1;
                }
                k += 1;
            }
            if size == 1 {
                if k > last {
                    return Err(Stop::Broken);
                }
                *nonzero |= 1 << k;
            }
            k += 1;
        }
        if self.end_of_band > 0 {
            let band = (u64::MAX >> (63 - last)) & (u64::MAX << k.min(63));
            let corrections = if k > last { 0 } else { (*nonzero & band).count_ones() };
            for _ in 0..corrections {
                self.bits.skip(1)?;
            }
            self.end_of_band -= 1;
        }
        Ok(())
    }
}
