//! Products of strided matrices, a safe wrapper of the crate `gemm`.

/// A matrix inside a slice: `rows` × `cols`, with the distance between rows and between columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl View {
    /// Row after row.
    pub(crate) fn row_major(rows: usize, cols: usize) -> Self {
        Self { rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The same values with rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride }
    }

    /// One past the furthest element that the view touches.
    fn extent(&self) -> usize {
        if self.rows == 0 || self.cols == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride + 1
    }
}

/// `dst = a · b`, or `dst += a · b` with `add`; on as many threads as the current rayon pool has if `parallel`.
///
/// # Panics
/// If the shapes do not fit one another or a view reaches beyond its slice.
pub(crate) fn product(
    (dst, dv): (&mut [f32], View),
    (a, av): (&[f32], View),
    (b, bv): (&[f32], View),
    add: bool,
    parallel: bool,
) {
    assert!(av.cols == bv.rows && dv.rows == av.rows && dv.cols == bv.cols, "shapes do not fit");
    assert!(
        dv.extent() <= dst.len() && av.extent() <= a.len() && bv.extent() <= b.len(),
        "view beyond its slice"
    );
    assert!(
        dv.row_stride >= dv.cols * dv.col_stride || dv.col_stride >= dv.rows * dv.row_stride,
        "elements of the result overlap"
    );
    let parallelism = match rayon::current_num_threads() {
        threads if parallel && threads > 1 => gemm::Parallelism::Rayon(threads),
        _ => gemm::Parallelism::None,
    };
    // SAFETY: the extents of all three views were checked against their slices, the elements of `dst` are distinct,
    // and the borrow checker keeps `dst` apart from `a` and `b`.
    unsafe {
        gemm::gemm(
            dv.rows,
            dv.cols,
            av.cols,
            dst.as_mut_ptr(),
            dv.col_stride as isize,
            dv.row_stride as isize,
            add,
            a.as_ptr(),
            av.col_stride as isize,
            av.row_stride as isize,
            b.as_ptr(),
            bv.col_stride as isize,
            bv.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strided_products_match_the_triple_loop() {
        for (m, k, n) in [(1, 1, 1), (3, 5, 7), (17, 33, 9), (0, 4, 4), (4, 0, 4)] {
            let a: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.37).sin()).collect();
            let b: Vec<f32> = (0..n * k).map(|i| (i as f32 * 0.91).cos()).collect();
            for add in [false, true] {
                let mut dst = vec![0.5f32; m * n];
                let bt = View::row_major(n, k).transposed();
                product((&mut dst, View::row_major(m, n)), (&a, View::row_major(m, k)), (&b, bt), add, false);
                for i in 0..m {
                    for j in 0..n {
                        let sum: f32 = (0..k).map(|l| a[i * k + l] * b[j * k + l]).sum();
                        let expected = sum + if add { 0.5 } else { 0.0 };
                        assert!((dst[i * n + j] - expected).abs() < 1e-4, "{m} {k} {n} {add}");
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "view beyond its slice")]
    fn a_view_beyond_its_slice_is_refused() {
        let v = View::row_major(2, 2);
        product((&mut [0.0; 3], v), (&[0.0; 4], v), (&[0.0; 4], v), false, false);
    }
}
