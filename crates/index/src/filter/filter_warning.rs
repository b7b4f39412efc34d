//! What is odd about a filter, in words.

use std::fmt;

/// Why a condition can meet no item of an index, or fewer than it seems.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FilterWarning {
    /// No item has the field.
    UnknownField {
        /// Its name as the filter has it.
        field: String,
        /// Fields of similar names, the most similar first.
        nearest: Vec<String>,
        /// Some of the fields that there are, if none has a similar name.
        known: Vec<String>,
    },
    /// The field has no value of the kind that the condition compares with.
    OtherKind {
        /// Name of the field as the filter has it.
        field: String,
        /// What the condition compares with.
        given: String,
        /// What the field has.
        found: String,
    },
    /// A range passes over some values of the field, because they are of another kind than its bounds.
    PassedOver {
        /// Name of the field as the filter has it.
        field: String,
        /// What the condition compares with.
        given: String,
        /// Values of other kinds.
        skipped: usize,
        /// All values of the field.
        values: usize,
        /// One of those passed over.
        example: String,
    },
    /// The condition asks for an item's own field, where only metadata of that name has such a value.
    Shadowed {
        /// Name of the field as the filter has it.
        field: String,
        /// The name that means the metadata.
        metadata: String,
    },
}

impl fmt::Display for FilterWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[String]| names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>();
        match self {
            Self::UnknownField { field, nearest, known } => {
                write!(f, "no item has the field {field:?}")?;
                match (nearest.as_slice(), known.as_slice()) {
                    ([], []) => Ok(()),
                    ([], known) => write!(f, "; fields are {}", list(known).join(", ")),
                    (nearest, _) => write!(f, "; did you mean {}?", list(nearest).join(" or ")),
                }
            }
            Self::OtherKind { field, given, found } => {
                write!(f, "the filter compares {field:?} with {given}, but its values are {found}")
            }
            Self::PassedOver { field, given, skipped, values, example } => write!(
                f,
                "the filter compares {field:?} with {given} and passes over {skipped} of its {values} values that are none, \
                 such as {example}"
            ),
            Self::Shadowed { field, metadata } => write!(
                f,
                "the filter asks for the item's own {field:?}, which has no such value; metadata of that name has: write \
                 {metadata:?} for it"
            ),
        }
    }
}
