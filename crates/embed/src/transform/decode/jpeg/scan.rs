//! Whether the scans of a JPEG hold every block of its picture.
//!
//! Decoders fill what is missing with grey or with nonsense, because they were made to show as much as they can. Here the
//! Huffman codes are read without computing pixels, which takes a small part of the time, so that a picture with a hole is
//! not taken for one of the catalogue. What djpeg warns of with all pixels there, bytes between segments, is no damage.

use std::ops::Range;

use super::block::Reader;
use super::header::{
    ADOBE, END_OF_IMAGE, Frame, HUFFMAN_TABLES, RESTART_INTERVAL, START_OF_SCAN, Segment, Segments,
    adobe_transform,
};
use super::huffman::{Rest, Stop, Table};

/// What decoders must be spared.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Irregularities {
    /// Bytes that belong to no segment and no scan.
    pub(super) gaps: Vec<Range<usize>>,
    /// Where the picture ends, if no end of image stands there.
    pub(super) end: Option<usize>,
    /// Whether the components of a sequential JPEG come in scans of their own.
    pub(super) separate: bool,
}

/// Why a picture is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The file ends within it.
    Truncated,
    /// Its data stops before its last block, or goes on behind it, or holds codes that cannot be.
    Damaged,
    /// It is not coded as this check knows; decoders may tell more.
    Unknown,
}

impl From<Stop> for Fault {
    fn from(_: Stop) -> Self {
        Self::Damaged
    }
}

/// More scans than any encoder writes cost time without end.
const MAX_SCANS: usize = 100;

/// Reads all scans of the picture.
pub(super) fn check(bytes: &[u8], frame: &Frame) -> Result<Irregularities, Fault> {
    let mut check = Check::new(frame);
    let mut found = Irregularities::default();
    let mut segments = Segments::new(bytes);
    let mut expected = segments.at;
    let mut scans = 0;
    while let Some(segment) = segments.next() {
        if segments.start > expected {
            found.gaps.push(expected..segments.start);
        }
        expected = segments.at;
        match segment.marker {
            // Decoders refuse what Adobe's segment does not define; libjpeg passes over it.
            ADOBE if segment.content.starts_with(b"Adobe") && adobe_transform(segment.content).is_none() => {
                found.gaps.push(segments.start..segments.at);
            }
            HUFFMAN_TABLES => check.read_tables(segment.content)?,
            RESTART_INTERVAL => {
                let interval = segment.content.first_chunk::<2>().ok_or(Fault::Unknown)?;
                check.restart_interval = usize::from(u16::from_be_bytes(*interval));
            }
            START_OF_SCAN => {
                scans += 1;
                if scans > MAX_SCANS {
                    return Err(Fault::Unknown);
                }
                let rest = check.read_scan(bytes, segments.at, segment)?;
                (segments.at, expected) = (rest.end, rest.start);
                found.separate = !frame.progressive && scans > 1;
                if !frame.progressive && check.is_complete() {
                    let ends = bytes[rest.end..].starts_with(&[0xff, END_OF_IMAGE]);
                    if rest.start < rest.end && ends {
                        found.gaps.push(rest.start..rest.end);
                    }
                    found.end = (!ends).then_some(rest.start);
                    return Ok(found);
                }
            }
            END_OF_IMAGE => return if check.has_all_components() { Ok(found) } else { Err(Fault::Damaged) },
            _ => {}
        }
    }
    if check.is_complete() {
        found.end = Some(expected);
        Ok(found)
    } else {
        Err(Fault::Truncated)
    }
}

/// What is known of a component.
struct State {
    sampling: (usize, usize),
    /// Blocks that hold pixels, across and down.
    blocks: (usize, usize),
    /// Blocks a row of the picture's units has.
    stride: usize,
    /// For each coefficient, the bits not yet read; 255 before its first scan.
    missing_bits: [u8; 64],
    /// For each block, the coefficients that are not zero. Only refining scans look at them.
    nonzero: Vec<u64>,
}

struct Check<'a> {
    frame: &'a Frame,
    /// Units of an interleaved scan, across and down.
    units: (usize, usize),
    states: Vec<State>,
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    restart_interval: usize,
}

/// The parameters of one scan.
struct Scan<'a> {
    /// Numbers of components, with their tables.
    components: Vec<(usize, Option<&'a Table>, Option<&'a Table>)>,
    first: usize,
    last: usize,
    refines: bool,
}

impl<'a> Check<'a> {
    fn new(frame: &'a Frame) -> Self {
        let (width, height) = (frame.width as usize, frame.height as usize);
        // A single component has units of one block, whatever sampling it states.
        let single = frame.components.len() == 1;
        let sampling = |s: (usize, usize)| if single { (1, 1) } else { s };
        let most = frame
            .components
            .iter()
            .map(|c| sampling(c.sampling))
            .fold((1, 1), |most, s| (most.0.max(s.0), most.1.max(s.1)));
        let units = (width.div_ceil(8 * most.0), height.div_ceil(8 * most.1));
        let states = frame.components.iter().map(|component| {
            let sampling = sampling(component.sampling);
            let blocks = (
                (width * sampling.0).div_ceil(most.0).div_ceil(8),
                (height * sampling.1).div_ceil(most.1).div_ceil(8),
            );
            let stride = units.0 * sampling.0;
            let all = if frame.progressive { stride * units.1 * sampling.1 } else { 0 };
            State { sampling, blocks, stride, missing_bits: [u8::MAX; 64], nonzero: vec![0; all] }
        });
        Self {
            frame,
            units,
            states: states.collect(),
            dc: Default::default(),
            ac: Default::default(),
            restart_interval: 0,
        }
    }

    /// Whether every bit of every coefficient was in a scan.
    fn is_complete(&self) -> bool {
        self.states.iter().all(|state| state.missing_bits.iter().all(|bits| *bits == 0))
    }

    fn has_all_components(&self) -> bool {
        self.states.iter().all(|state| state.missing_bits[0] != u8::MAX)
    }

    fn read_tables(&mut self, mut content: &[u8]) -> Result<(), Fault> {
        while let [selector, rest @ ..] = content {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or(Fault::Unknown)?;
            let symbols: usize = counts.iter().map(|count| usize::from(*count)).sum();
            let table =
                Table::new(counts, rest.get(..symbols).ok_or(Fault::Unknown)?).ok_or(Fault::Unknown)?;
            let tables = if selector >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *tables.get_mut(usize::from(selector & 15)).ok_or(Fault::Unknown)? = Some(table);
            content = &rest[symbols..];
        }
        Ok(())
    }

    fn scan(&self, content: &[u8]) -> Option<(Scan<'_>, u8)> {
        let (count, rest) = content.split_first()?;
        let count = usize::from(*count);
        let (selectors, &[first, last, bits]) = rest.split_at_checked(2 * count)? else { return None };
        let components = selectors.as_chunks::<2>().0.iter().map(|&[id, tables]| {
            let number = self.frame.components.iter().position(|component| component.id == id)?;
            let dc = self.dc.get(usize::from(tables >> 4))?.as_ref();
            Some((number, dc, self.ac.get(usize::from(tables & 15))?.as_ref()))
        });
        let components = components.collect::<Option<Vec<_>>>()?;
        let (first, last) = (usize::from(first), usize::from(last));
        if self.frame.progressive {
            let spectrum = first <= last && last < 64 && (first > 0 || last == 0);
            let valid = !components.is_empty() && spectrum && (first == 0 || components.len() == 1);
            return valid.then_some((Scan { components, first, last, refines: bits >> 4 != 0 }, bits & 15));
        }
        let complete = components.iter().all(|(_, dc, ac)| dc.is_some() && ac.is_some());
        (complete && !components.is_empty())
            .then_some((Scan { components, first: 0, last: 63, refines: false }, 0))
    }

    /// Reads the blocks of one scan, whose data starts at `at`.
    fn read_scan(&mut self, bytes: &[u8], at: usize, segment: Segment<'_>) -> Result<Rest, Fault> {
        let mut masks: Vec<Vec<u64>> =
            self.states.iter_mut().map(|s| std::mem::take(&mut s.nonzero)).collect();
        let (scan, missing_bits) = self.scan(segment.content).ok_or(Fault::Unknown)?;
        let mut reader = Reader::new(bytes, at);
        let units = match scan.components[..] {
            [(number, ..)] => self.states[number].blocks,
            _ => self.units,
        };
        let mut left = self.restart_interval;
        for row in 0..units.1 {
            for column in 0..units.0 {
                if self.restart_interval > 0 {
                    if left == 0 {
                        reader.restart()?;
                        left = self.restart_interval;
                    }
                    left -= 1;
                }
                self.read_unit(&scan, &mut masks, &mut reader, (column, row))
                    .map_err(|stop| reader.fault(stop))?;
            }
        }
        let covered: Vec<usize> = scan.components.iter().map(|(number, ..)| *number).collect();
        let range = scan.first..=scan.last;
        for number in covered {
            self.states[number].missing_bits[range.clone()].fill(missing_bits);
        }
        for (state, mask) in self.states.iter_mut().zip(masks) {
            state.nonzero = mask;
        }
        let rest = reader.bits.rest();
        if is_padding(bytes, rest) { Ok(rest) } else { Err(Fault::Damaged) }
    }

    fn read_unit(
        &self,
        scan: &Scan<'_>,
        masks: &mut [Vec<u64>],
        reader: &mut Reader<'_>,
        unit: (usize, usize),
    ) -> Result<(), Stop> {
        let interleaved = scan.components.len() > 1;
        for (number, dc, ac) in &scan.components {
            let state = &self.states[*number];
            let (across, down) = if interleaved { state.sampling } else { (1, 1) };
            if !self.frame.progressive {
                // Both tables were looked for.
                let (Some(dc), Some(ac)) = (dc, ac) else { return Err(Stop::Broken) };
                for _ in 0..across * down {
                    reader.block(dc, ac)?;
                }
            } else if scan.first == 0 {
                for _ in 0..across * down {
                    if scan.refines { reader.bits.skip(1)? } else { reader.dc(dc.ok_or(Stop::Broken)?)? }
                }
            } else {
                let mask = &mut masks[*number][unit.1 * state.stride + unit.0];
                let ac = ac.ok_or(Stop::Broken)?;
                if scan.refines {
                    reader.refine(ac, scan.first, scan.last, mask)?;
                } else {
                    reader.band(ac, scan.first, scan.last, mask)?;
                }
            }
        }
        Ok(())
    }
}

/// Bytes behind the last code that say nothing: fill bytes, or a few that some program left there. A decoder that lost its
/// place also stops early, with codes left over; then the last byte is rarely filled up with ones.
fn is_padding(bytes: &[u8], rest: Rest) -> bool {
    const FEW: usize = 64;
    let left = &bytes[rest.start..rest.end];
    let fill = left.iter().all(|byte| *byte == 0) || left.iter().all(|byte| *byte == 0xff);
    left.is_empty() || rest.padded_with_ones && (fill || left.len() <= FEW)
}
