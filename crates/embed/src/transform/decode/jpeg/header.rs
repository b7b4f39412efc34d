//! Marker segments of a JPEG up to its first scan.

use image::metadata::Orientation;

use super::super::colour_profile::ColourSpace;
use super::super::{ImageErrorKind, orientation};

pub(super) const END_OF_IMAGE: u8 = 0xd9;
pub(super) const START_OF_SCAN: u8 = 0xda;
pub(super) const HUFFMAN_TABLES: u8 = 0xc4;
pub(super) const RESTART_INTERVAL: u8 = 0xdd;
pub(super) const ADOBE: u8 = 0xee;

/// A marker with the content of its segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub(super) marker: u8,
    pub(super) content: &'a [u8],
}

/// The marker segments of a file. Bytes between segments that belong to none are passed over, as libjpeg does.
#[derive(Clone, Debug)]
pub(super) struct Segments<'a> {
    bytes: &'a [u8],
    /// Where the next segment is looked for.
    pub(super) at: usize,
    /// Where the segment that was returned last starts.
    pub(super) start: usize,
}

impl<'a> Segments<'a> {
    /// All segments behind the start of image.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 2, start: 2 }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    /// `None` where the file ends, within a segment too.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.bytes.get(self.at..)?;
            let fill = self.at + rest.iter().position(|byte| *byte == 0xff)?;
            let code = fill + self.bytes[fill..].iter().position(|byte| *byte != 0xff)?;
            self.at = code + 1;
            let marker = self.bytes[code];
            self.start = code - 1;
            match marker {
                0 => {}
                0x01 | 0xd0..=0xd9 => return Some(Segment { marker, content: &[] }),
                _ => {
                    let length = self.bytes.get(code + 1..code + 3)?;
                    let length = usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
                    let content = self.bytes.get(code + 3..code + 1 + length)?;
                    self.at = code + 1 + length;
                    return Some(Segment { marker, content });
                }
            }
        }
    }
}

/// A component of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Component {
    pub(super) id: u8,
    /// Blocks of a unit of an interleaved scan, across and down.
    pub(super) sampling: (usize, usize),
}

/// The frame header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) progressive: bool,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) components: Vec<Component>,
}

impl Frame {
    fn read(segment: Segment<'_>) -> Result<Self, ImageErrorKind> {
        let &[precision, h1, h0, w1, w0, count, ref components @ ..] = segment.content else {
            return Err(ImageErrorKind::Decode("the JPEG's frame header is too short".to_owned()));
        };
        let unsupported = |what: &str| Err(ImageErrorKind::UnsupportedKind(what.to_owned()));
        match segment.marker {
            0xc3 => return unsupported("a lossless JPEG"),
            0xc5..=0xc7 => return unsupported("a hierarchical JPEG"),
            0xc9 | 0xca => return unsupported("an arithmetic-coded JPEG"),
            0xcb | 0xcd..=0xcf => return unsupported("an arithmetic-coded JPEG of a rare kind"),
            _ => {}
        }
        if precision != 8 {
            return unsupported(&format!("a JPEG of {precision} bits per sample"));
        }
        let (width, height) = (u32::from_be_bytes([0, 0, w1, w0]), u32::from_be_bytes([0, 0, h1, h0]));
        if height == 0 {
            return unsupported("a JPEG that states its height behind its pixels");
        }
        let components: Vec<Component> = components
            .as_chunks::<3>()
            .0
            .iter()
            .take(usize::from(count))
            .map(|&[id, sampling, _]| Component {
                id,
                sampling: (usize::from(sampling >> 4), usize::from(sampling & 15)),
            })
            .collect();
        let valid = |c: &Component| (1..=4).contains(&c.sampling.0) && (1..=4).contains(&c.sampling.1);
        if components.len() != usize::from(count) || !components.iter().all(valid) {
            return Err(ImageErrorKind::Decode("the JPEG's frame header is damaged".to_owned()));
        }
        if !matches!(count, 1 | 3 | 4) {
            return unsupported(&format!("a JPEG of {count} colour components"));
        }
        Ok(Self { progressive: segment.marker == 0xc2, width, height, components })
    }
}

/// What stands before the first scan.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) frame: Frame,
    pub(super) orientation: Orientation,
    pub(super) space: Option<ColourSpace>,
    /// The colour transform that Adobe's segment states.
    pub(super) adobe: Option<u8>,
}

impl Header {
    /// # Errors
    /// [`ImageErrorKind::Truncated`] if there is no scan, [`ImageErrorKind::UnsupportedKind`] for codings that are not
    /// decoded.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, ImageErrorKind> {
        const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
        let (mut frame, mut adobe, mut xmp) = (None, None, None);
        let (mut exif, mut profile) = (Vec::new(), Vec::new());
        for segment in Segments::new(bytes) {
            match (segment.marker, segment.content) {
                (0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf, _) if frame.is_none() => {
                    frame = Some(Frame::read(segment)?);
                }
                (0xe1, content) if content.starts_with(b"Exif\0\0") => exif.push(content),
                (0xe1, content) => xmp = xmp.or(content.strip_prefix(XMP)),
                (0xe2, content) => profile.extend(profile_part(content)),
                (ADOBE, content) => adobe = adobe.or(adobe_transform(content)),
                (START_OF_SCAN, _) => {
                    let Some(frame) = frame else {
                        return Err(ImageErrorKind::Decode("the JPEG has no frame header".to_owned()));
                    };
                    let orientation = orientation::stated(exif, xmp);
                    return Ok(Self { frame, orientation, space: assemble_profile(profile), adobe });
                }
                (END_OF_IMAGE, _) => break,
                _ => {}
            }
        }
        Err(ImageErrorKind::Truncated)
    }
}

/// The colour transform of Adobe's segment: none, YCbCr or YCCK.
pub(super) fn adobe_transform(content: &[u8]) -> Option<u8> {
    content.strip_prefix(b"Adobe").and_then(|rest| rest.get(6)).copied().filter(|transform| *transform <= 2)
}

/// A part of an ICC profile: its number from 1, and how many there are.
type ProfilePart<'a> = (u8, u8, &'a [u8]);

fn profile_part(content: &[u8]) -> Option<ProfilePart<'_>> {
    let [number, count, data @ ..] = content.strip_prefix(b"ICC_PROFILE\0")? else { return None };
    Some((*number, *count, data))
}

/// The profile, if all its parts are there, in whatever order.
fn assemble_profile(mut parts: Vec<ProfilePart<'_>>) -> Option<ColourSpace> {
    parts.sort_by_key(|part| part.0);
    parts.dedup_by_key(|part| part.0);
    let count = usize::from(parts.first()?.1);
    let complete = parts.len() == count && parts.iter().zip(1..).all(|(part, number)| part.0 == number);
    complete.then(|| ColourSpace::Icc(parts.iter().flat_map(|part| part.2).copied().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
        [&[0xff, marker][..], &(content.len() as u16 + 2).to_be_bytes(), content].concat()
    }

    #[test]
    fn bytes_between_segments_are_passed_over() {
        let bytes = [
            &[0xff, 0xd8][..],
            &[0, 0, 7],
            &segment(0xe0, b"first"),
            &[0xff, 0xff],
            &segment(0xe1, b"second"),
            &[0xff, 0, 0],
            &segment(0xe2, b"third"),
            &[0xff, 0xe3, 0, 9],
        ]
        .concat();
        let found: Vec<_> = Segments::new(&bytes).map(|s| (s.marker, s.content)).collect();
        assert_eq!(found, [(0xe0, &b"first"[..]), (0xe1, b"second"), (0xe2, b"third")]);
    }

    #[test]
    fn a_profile_is_put_together_by_number() {
        let part = |number, count, text: &'static [u8]| (number, count, text);
        let profile = assemble_profile(vec![part(2, 2, b"cd"), part(1, 2, b"ab")]);
        assert_eq!(profile, Some(ColourSpace::Icc(b"abcd".to_vec())));
        assert_eq!(assemble_profile(vec![part(2, 2, b"cd")]), None);
        assert_eq!(assemble_profile(vec![part(0, 1, b"cd")]), None);
        assert_eq!(assemble_profile(Vec::new()), None);
    }

    #[test]
    fn kinds_without_a_decoder_are_named() {
        let of = |marker, precision, count: u8| {
            let mut content = vec![precision, 0, 16, 0, 16, count];
            content.extend([1, 0x11, 0].repeat(usize::from(count)));
            let bytes = [
                &[0xff, 0xd8][..],
                &segment(marker, &content),
                &segment(START_OF_SCAN, &[1, 1, 0, 0, 63, 0]),
            ];
            Header::read(&bytes.concat()).map(|header| header.frame.progressive).map_err(|e| e.to_string())
        };
        assert_eq!(of(0xc0, 8, 3), Ok(false));
        assert_eq!(of(0xc2, 8, 1), Ok(true));
        for (marker, precision, count, name) in [
            (0xc1, 12, 3, "a JPEG of 12 bits per sample"),
            (0xc3, 8, 3, "a lossless JPEG"),
            (0xc9, 8, 3, "an arithmetic-coded JPEG"),
            (0xca, 8, 3, "an arithmetic-coded JPEG"),
            (0xc5, 8, 3, "a hierarchical JPEG"),
            (0xc0, 8, 2, "a JPEG of 2 colour components"),
        ] {
            let message = of(marker, precision, count).unwrap_err();
            assert!(message.contains(name), "{message}");
        }
    }
}
