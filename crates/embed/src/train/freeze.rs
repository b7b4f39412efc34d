//! For how long a part of the network stays as it is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `none`, `all`, or a number of steps from the first on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Freeze {
    /// Never.
    #[default]
    None,
    /// For the first steps.
    First(usize),
    /// Throughout.
    All,
}

impl Freeze {
    /// Whether it holds at step `step` (from 0).
    pub fn at(self, step: usize) -> bool {
        match self {
            Self::None => false,
            Self::First(steps) => step < steps,
            Self::All => true,
        }
    }
}

impl FromStr for Freeze {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "all" => Ok(Self::All),
            steps => {
                let number = steps.parse().map(Self::First);
                number.map_err(|_| format!("{text:?} is neither none, nor all, nor a number of steps"))
            }
        }
    }
}

impl TryFrom<String> for Freeze {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::First(steps) => write!(f, "{steps}"),
            Self::All => f.write_str("all"),
        }
    }
}

impl From<Freeze> for String {
    fn from(freeze: Freeze) -> Self {
        freeze.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_come_back_as_they_were() {
        for text in ["none", "all", "500"] {
            assert_eq!(text.parse::<Freeze>().unwrap().to_string(), text);
        }
        assert!("some".parse::<Freeze>().unwrap_err().contains("some"));
        assert!(
            Freeze::First(3).at(2) && !Freeze::First(3).at(3) && !Freeze::None.at(0) && Freeze::All.at(9)
        );
    }
}
