//! The part of a photograph that shows the item.

use std::fmt;
use std::str::FromStr;

use image::RgbImage;
use serde::{Deserialize, Serialize};

/// A box in the upright picture, from its top left corner.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum CropBox {
    /// Left, top, width and height in pixels.
    Pixels([u32; 4]),
    /// Left, top, width and height as shares of the picture's width and height.
    Shares([f64; 4]),
}

/// A box that is none, or not within the picture.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CropError {
    /// Not a box at all.
    #[error(
        "the box {text:?} is not x,y,w,h: four whole numbers of pixels, or four shares from 0.0 to 1.0 (a decimal point \
         makes them shares)"
    )]
    Syntax {
        /// What was given.
        text: String,
    },
    /// Without area.
    #[error("the box {text} has no area")]
    Empty {
        /// The box.
        text: String,
    },
    /// Beyond the picture's edge.
    #[error("the box {text} reaches out of the picture of {width} × {height} pixels")]
    Outside {
        /// The box.
        text: String,
        /// The picture's width.
        width: u32,
        /// Its height.
        height: u32,
    },
}

impl CropBox {
    /// The middle of a picture, `share` of its width and height.
    pub fn middle(share: f64) -> Self {
        let edge = (1.0 - share) / 2.0;
        Self::Shares([edge, edge, share, share])
    }

    /// That part of the picture.
    ///
    /// # Errors
    /// [`CropError::Outside`] and [`CropError::Empty`].
    pub fn cut(&self, picture: &RgbImage) -> Result<RgbImage, CropError> {
        let (width, height) = picture.dimensions();
        let [x, y, w, h] = self.pixels(width, height)?;
        Ok(image::imageops::crop_imm(picture, x, y, w, h).to_image())
    }

    /// The box in pixels of a picture of this size.
    fn pixels(&self, width: u32, height: u32) -> Result<[u32; 4], CropError> {
        let outside = || CropError::Outside { text: self.to_string(), width, height };
        let [x, y, w, h] = match *self {
            Self::Pixels(pixels) => pixels,
            Self::Shares([x, y, w, h]) => {
                // A hair of rounding is no reason to refuse a box that ends at the edge.
                if x + w > 1.0 + 1e-6 || y + h > 1.0 + 1e-6 {
                    return Err(outside());
                }
                let span = |start: f64, length: f64, of: u32| {
                    let edge = |share: f64| ((share * f64::from(of)).round() as u32).min(of);
                    (edge(start), edge(start + length) - edge(start))
                };
                let ((x, w), (y, h)) = (span(x, w, width), span(y, h, height));
                [x, y, w, h]
            }
        };
        if w == 0 || h == 0 {
            return Err(CropError::Empty { text: self.to_string() });
        }
        let within = |start: u32, length: u32, of: u32| u64::from(start) + u64::from(length) <= u64::from(of);
        if within(x, w, width) && within(y, h, height) { Ok([x, y, w, h]) } else { Err(outside()) }
    }
}

impl fmt::Display for CropBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pixels([x, y, w, h]) => write!(f, "{x},{y},{w},{h}"),
            Self::Shares([x, y, w, h]) => write!(f, "{x:?},{y:?},{w:?},{h:?}"),
        }
    }
}

impl FromStr for CropBox {
    type Err = CropError;

    fn from_str(text: &str) -> Result<Self, CropError> {
        let bad = || CropError::Syntax { text: text.to_owned() };
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let parts: [&str; 4] = parts.try_into().map_err(|_| bad())?;
        if parts.iter().any(|part| part.contains('.')) {
            let mut shares = [0.0; 4];
            for (share, part) in shares.iter_mut().zip(parts) {
                *share = part.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(bad)?;
            }
            Ok(Self::Shares(shares))
        } else {
            let mut pixels = [0; 4];
            for (pixel, part) in pixels.iter_mut().zip(parts) {
                *pixel = part.parse().map_err(|_| bad())?;
            }
            Ok(Self::Pixels(pixels))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Result<(u32, u32, u8), CropError> {
        let picture = RgbImage::from_fn(40, 20, |x, y| image::Rgb([(x + y) as u8, 0, 0]));
        let part = text.parse::<CropBox>()?.cut(&picture)?;
        Ok((part.width(), part.height(), part.get_pixel(0, 0).0[0]))
    }

    #[test]
    fn pixels_and_shares() {
        assert_eq!(cut("10,5,20,15"), Ok((20, 15, 15)));
        assert_eq!(cut("0.25, 0.25, 0.5, 0.75"), Ok((20, 15, 15)));
        assert_eq!(cut("0.0,0,1,1"), Ok((40, 20, 0)), "one decimal point makes all shares");
        assert_eq!(cut("0.9,0,0.1,1"), Ok((4, 20, 36)), "0.9 + 0.1 is no reason to complain");
        assert_eq!(CropBox::middle(0.5).cut(&RgbImage::new(8, 8)).unwrap().dimensions(), (4, 4));
    }

    #[test]
    fn boxes_that_are_none_are_refused() {
        let text = |text: &str| cut(text).unwrap_err().to_string();
        assert_eq!(text("30,0,11,5"), "the box 30,0,11,5 reaches out of the picture of 40 × 20 pixels");
        assert_eq!(text("4294967295,0,2,5").split(' ').nth(2), Some("4294967295,0,2,5"), "no overflow");
        assert!(text("0.5,0,0.6,1").contains("reaches out"));
        assert!(text("3,3,0,5").contains("no area"));
        for bad in ["1,2,3", "a,b,c,d", "-1,0,5,5", "0.1,0.1,1.2,0.5", "nan,0.1,0.2,0.3", ""] {
            assert!(text(bad).contains("is not x,y,w,h"), "{bad}");
        }
    }
}
