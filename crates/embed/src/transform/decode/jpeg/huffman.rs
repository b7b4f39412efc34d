//! Huffman codes and the bits they are read from, for checking scans without decoding their pixels.

/// Why a scan cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The bits form no code, or a code that cannot stand here.
    Broken,
    /// The data is used up.
    Exhausted,
}

/// Bits that the lookup table resolves at once.
const LOOKUP_BITS: u32 = 10;

/// Bits of the value behind a symbol's code: of a difference of means, or of a coefficient behind a run of zeros.
fn value_bits(symbol: u8) -> u32 {
    u32::from(symbol & 15)
}

/// One Huffman table.
#[derive(Clone)]
pub(super) struct Table {
    /// For the next `LOOKUP_BITS` bits: the symbol in the high byte, in the low one the bits of its code and of the value
    /// behind it. Zero: a longer code.
    lookup: Box<[u16; 1 << LOOKUP_BITS]>,
    /// For each length from 1: the end of its codes, as the first 16 bits.
    limits: [u32; 16],
    /// For each length from 1: what to add to a code to find its symbol.
    offsets: [i32; 16],
    symbols: Vec<u8>,
}

impl Table {
    /// The table of these numbers of codes of each length. `None` if there are more codes than bits can tell apart.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut table = Self {
            lookup: Box::new([0; 1 << LOOKUP_BITS]),
            limits: [0; 16],
            offsets: [0; 16],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut index) = (0u32, 0usize);
        for (length, count) in (1..=16u32).zip(counts) {
            table.offsets[length as usize - 1] = index as i32 - code as i32;
            for _ in 0..*count {
                if code >> length != 0 {
                    return None;
                }
                let symbol = *symbols.get(index)?;
                if length <= LOOKUP_BITS {
                    let spread = LOOKUP_BITS - length;
                    let first = (code << spread) as usize;
                    let bits = length as u16 + value_bits(symbol) as u16;
                    table.lookup[first..first + (1 << spread)].fill(u16::from(symbol) << 8 | bits);
                }
                code += 1;
                index += 1;
            }
            table.limits[length as usize - 1] = code << (16 - length);
            code <<= 1;
        }
        Some(table)
    }

    /// A code longer than the lookup resolves, among the next 16 bits.
    fn long(&self, bits: u32) -> Option<(u8, u32)> {
        let length = (LOOKUP_BITS + 1..=16).find(|length| bits < self.limits[*length as usize - 1])?;
        let index = (bits >> (16 - length)) as i32 + self.offsets[length as usize - 1];
        Some((*self.symbols.get(usize::try_from(index).ok()?)?, length))
    }
}

/// The bits of one entropy-coded segment: stuffed zeros are left out, and the next marker ends it.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The byte that is loaded next.
    at: usize,
    /// The next bits from the top, then zeros.
    window: u64,
    /// How many of them there are.
    count: u32,
    /// Whether a marker or the end of the file is next.
    ended: bool,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, window: 0, count: 0, ended: false }
    }

    fn refill(&mut self) {
        if let Some(next) = self.bytes.get(self.at..self.at + 8) {
            let next = u64::from_be_bytes(next.try_into().unwrap_or_default());
            // Of eight bytes without an FF, as many as fit.
            if !has_ff(next) {
                let taken = (64 - self.count) / 8;
                if taken == 0 {
                    return;
                }
                self.window |= (next >> (64 - 8 * taken) << (64 - 8 * taken)) >> self.count;
                self.count += 8 * taken;
                self.at += taken as usize;
                return;
            }
        }
        while self.count <= 56 && !self.ended {
            match (self.bytes.get(self.at), self.bytes.get(self.at + 1)) {
                (Some(0xff), Some(0)) => {
                    self.push(0xff);
                    self.at += 2;
                }
                (Some(0xff), _) | (None, _) => self.ended = true,
                (Some(byte), _) => {
                    self.push(*byte);
                    self.at += 1;
                }
            }
        }
    }

    fn push(&mut self, byte: u8) {
        self.window |= u64::from(byte) << (56 - self.count);
        self.count += 8;
    }

    /// The next symbol. The value behind it, of as many bits as its low half says, is passed over.
    #[inline]
    pub(super) fn symbol(&mut self, table: &Table) -> Result<u8, Stop> {
        // A code and its value have 31 bits at most.
        if self.count < 32 && !self.ended {
            self.refill();
        }
        let entry = table.lookup[(self.window >> (64 - LOOKUP_BITS)) as usize];
        let (symbol, bits) = if entry != 0 {
            ((entry >> 8) as u8, u32::from(entry & 0xff))
        } else {
            match table.long((self.window >> 48) as u32) {
                Some((symbol, length)) => (symbol, length + value_bits(symbol)),
                None if self.count < 16 => return Err(Stop::Exhausted),
                None => return Err(Stop::Broken),
            }
        };
        if bits > self.count {
            return Err(Stop::Exhausted);
        }
        self.window <<= bits;
        self.count -= bits;
        Ok(symbol)
    }

    /// Passes over up to 16 bits.
    pub(super) fn skip(&mut self, bits: u32) -> Result<(), Stop> {
        if bits > self.count {
            self.refill();
            if bits > self.count {
                return Err(Stop::Exhausted);
            }
        }
        self.window <<= bits;
        self.count -= bits;
        Ok(())
    }

    /// The value of up to 16 bits.
    pub(super) fn value(&mut self, bits: u32) -> Result<u32, Stop> {
        if bits > self.count {
            self.refill();
        }
        let value = if bits == 0 { 0 } else { (self.window >> (64 - bits)) as u32 };
        self.skip(bits)?;
        Ok(value)
    }

    /// Whether the data ends with the file, not at a marker.
    pub(super) fn at_end_of_file(&self) -> bool {
        self.ended && self.at + 1 >= self.bytes.len()
    }

    /// What is left behind the last code.
    pub(super) fn rest(mut self) -> Rest {
        let padding = self.count % 8;
        let ones = padding == 0 || (!self.window >> (64 - padding)) == 0;
        self.window <<= padding;
        self.count -= padding;
        // The bytes in the window are the last ones loaded. Stuffed zeros among them are counted back.
        let mut start = self.at;
        for _ in 0..self.count / 8 {
            start -= 1;
            if start > 0 && self.bytes[start] == 0 && self.bytes[start - 1] == 0xff {
                start -= 1;
            }
        }
        let marker = |at: usize| self.bytes[at] == 0xff && !matches!(self.bytes.get(at + 1), Some(0));
        let end = (start..self.bytes.len()).find(|at| marker(*at)).unwrap_or(self.bytes.len());
        Rest { padded_with_ones: ones, start, end }
    }
}

/// What lies between the last code of an entropy-coded segment and the next marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rest {
    /// Whether the last byte is filled up with ones, as the standard wants.
    pub(super) padded_with_ones: bool,
    /// The first byte behind the codes.
    pub(super) start: usize,
    /// The next marker, or the end of the file.
    pub(super) end: usize,
}

/// Whether one of eight bytes is FF.
fn has_ff(bytes: u64) -> bool {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    (!bytes).wrapping_sub(LOW) & bytes & HIGH != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes 0, 10, 110 and, of 12 bits, 1110 0000 0000, whose symbols have no values behind them.
    fn table() -> Table {
        let mut counts = [0; 16];
        (counts[0], counts[1], counts[2], counts[11]) = (1, 1, 1, 1);
        Table::new(&counts, b"0@P`").unwrap()
    }

    #[test]
    fn codes_of_all_lengths() {
        // Each of the four, and back.
        let bytes = [0b0101_1011, 0b1000_0000, 0b0011_0100, 0xff, 0xd9];
        let mut bits = Bits::new(&bytes, 0);
        let read: Vec<u8> = (0..7).map(|_| bits.symbol(&table()).unwrap()).collect();
        assert_eq!(read, b"0@P`P@0");
        let rest = bits.rest();
        assert_eq!(rest, Rest { padded_with_ones: true, start: 3, end: 3 });
    }

    #[test]
    fn too_many_codes_are_no_table() {
        let mut counts = [0; 16];
        counts[0] = 3;
        assert!(Table::new(&counts, b"abc").is_none());
        counts[0] = 2;
        assert!(Table::new(&counts, b"a").is_none());
    }

    #[test]
    fn markers_end_the_data_and_stuffed_bytes_do_not() {
        let bytes = [0xff, 0, 0xff, 0, 1, 2, 3, 4, 5, 6, 0xff, 0xd0, 9];
        let mut bits = Bits::new(&bytes, 0);
        assert_eq!(bits.value(16), Ok(0xffff));
        assert_eq!(bits.value(12), Ok(0x010));
        assert_eq!(bits.value(16), Ok(0x2030));
        assert_eq!(bits.value(16), Ok(0x4050));
        assert_eq!(bits.value(5), Err(Stop::Exhausted));
        let bits = Bits::new(&bytes, 0);
        assert_eq!(bits.rest(), Rest { padded_with_ones: true, start: 0, end: 10 });
        let mut bits = Bits::new(&bytes, 0);
        bits.skip(9).unwrap();
        assert_eq!(bits.rest(), Rest { padded_with_ones: true, start: 4, end: 10 });
        let mut bits = Bits::new(&bytes, 0);
        bits.skip(16).unwrap();
        bits.skip(4).unwrap();
        assert_eq!(bits.rest(), Rest { padded_with_ones: false, start: 5, end: 10 });
    }
}
