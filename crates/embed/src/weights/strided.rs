//! Tensors that are views of a storage, made plain: row-major and without gaps.

/// A view of a storage, counted in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    /// Where it begins.
    pub(super) offset: usize,
    /// Length of each dimension.
    pub(super) shape: Vec<usize>,
    /// Distance between neighbours along each dimension.
    pub(super) strides: Vec<usize>,
}

impl View {
    /// Numbers of the plain tensor.
    ///
    /// # Errors
    /// What is wrong with a view that is too large, or does not lie within a storage of `held` numbers.
    pub(super) fn checked_count(&self, held: usize) -> Result<usize, String> {
        let Self { offset, shape, strides } = self;
        if shape.len() != strides.len() || shape.len() > 64 {
            return Err(format!(
                "it has a shape of {} and strides of {} dimensions",
                shape.len(),
                strides.len()
            ));
        }
        let count = shape.iter().try_fold(1usize, |count, side| count.checked_mul(*side));
        if shape.contains(&0) {
            return Ok(0);
        }
        let reach = shape
            .iter()
            .zip(strides)
            .try_fold(*offset, |at, (side, stride)| at.checked_add((side - 1).checked_mul(*stride)?));
        match (count, reach) {
            (Some(count), Some(last)) if last < held => Ok(count),
            _ => Err(format!(
                "its shape {shape:?} with strides {strides:?} from {offset} on reaches beyond the {held} numbers that \
                 the file has for it"
            )),
        }
    }

    /// The bytes of the view's numbers of `width` bytes in row-major order. The view must lie within the storage.
    pub(super) fn gather(&self, storage: &[u8], width: usize) -> Vec<u8> {
        let Self { offset, shape, strides } = self;
        let count: usize = shape.iter().product();
        if count == 0 {
            return Vec::new();
        }
        if self.is_plain() {
            return storage[offset * width..(offset + count) * width].to_vec();
        }
        let mut plain = Vec::with_capacity(count * width);
        let (mut place, mut at) = (vec![0; shape.len()], *offset);
        loop {
            plain.extend_from_slice(&storage[at * width..(at + 1) * width]);
            // As an odometer: the last dimension turns first.
            let mut dim = shape.len();
            loop {
                if dim == 0 {
                    return plain;
                }
                dim -= 1;
                place[dim] += 1;
                if place[dim] < shape[dim] {
                    at += strides[dim];
                    break;
                }
                at -= strides[dim] * (shape[dim] - 1);
                place[dim] = 0;
            }
        }
    }

    fn is_plain(&self) -> bool {
        let mut wanted = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&side, &stride)| {
            let fits = side == 1 || stride == wanted;
            wanted *= side;
            fits
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(offset: usize, shape: &[usize], strides: &[usize]) -> View {
        View { offset, shape: shape.to_vec(), strides: strides.to_vec() }
    }

    fn gathered(view: &View, held: u8) -> Vec<u8> {
        let storage: Vec<u8> = (0..held).flat_map(|number| [number, 100 + number]).collect();
        assert_eq!(view.checked_count(held.into()).unwrap(), view.shape.iter().product::<usize>());
        let plain = view.gather(&storage, 2);
        plain.chunks(2).for_each(|pair| assert_eq!(pair[1], pair[0] + 100));
        plain.chunks(2).map(|pair| pair[0]).collect()
    }

    #[test]
    fn any_strides_become_rows() {
        assert_eq!(gathered(&view(1, &[2, 3], &[3, 1]), 7), [1, 2, 3, 4, 5, 6]);
        assert_eq!(gathered(&view(0, &[3, 2], &[1, 3]), 6), [0, 3, 1, 4, 2, 5], "transposed");
        // (1, 2, 2, 2) in the order of torch.channels_last.
        assert_eq!(gathered(&view(0, &[1, 2, 2, 2], &[8, 1, 4, 2]), 8), [0, 2, 4, 6, 1, 3, 5, 7]);
        assert_eq!(gathered(&view(4, &[2, 2], &[5, 2]), 12), [4, 6, 9, 11], "with gaps");
        assert_eq!(gathered(&view(2, &[2, 3], &[1, 0]), 4), [2, 2, 2, 3, 3, 3], "expanded");
        assert_eq!(gathered(&view(3, &[], &[]), 4), [3], "a scalar");
        assert_eq!(gathered(&view(9, &[2, 0, 3], &[3, 3, 1]), 4), [0u8; 0], "empty");
        assert_eq!(
            gathered(&view(0, &[1, 3], &[77, 1]), 3),
            [0, 1, 2],
            "the stride of a dimension of size 1 is ignored"
        );
    }

    #[test]
    fn views_beyond_their_storage_and_of_impossible_sizes_are_refused() {
        for (bad, held) in [
            (view(0, &[7], &[1]), 6),
            (view(6, &[], &[]), 6),
            (view(0, &[2, 2], &[1, 5]), 6),
            (view(usize::MAX, &[2], &[1]), 6),
            (view(0, &[usize::MAX, 2], &[0, 1]), 6),
            (view(0, &[3], &[usize::MAX]), 6),
            (view(0, &[2, 2], &[1]), 6),
        ] {
            assert!(bad.checked_count(held).is_err(), "{bad:?}");
        }
    }
}
