//! Matrix completion: a latency row from two of its entries and the full rows of other models.
//!
//! The released code calls TFOCS's nuclear-norm basis pursuit: of all matrices with the known
//! entries, the one of least nuclear norm (sum of singular values). Here the same problem is
//! solved by Douglas-Rachford splitting: alternately shrink the singular values and put the known
//! entries back. Sums, products and square roots only, in a fixed order: same bits everywhere.

/// Iterations; the largest change is then far below a microsecond for matrices of this size.
const ITERATIONS: usize = 3000;
/// Stop when no entry moves by more than this part of the largest one.
const SETTLED: f64 = 1e-10;
/// Sweeps of Jacobi rotations; they converge quadratically, eight are plenty for ten columns.
const SWEEPS: usize = 12;

/// Completes `target`, whose unknown entries are `None`, beside the full rows `known`; all rows
/// are as long as `target`.
pub(super) fn complete(known: &[Vec<f64>], target: &[Option<f64>]) -> Vec<f64> {
    let columns = target.len();
    let rows = known.len() + 1;
    let given = |i: usize, j: usize| match known.get(i) {
        Some(row) => Some(row[j]),
        None => target[j],
    };
    let mut largest = 0.0f64;
    let mut norm = 0.0;
    let mut z = Matrix::new(rows, columns);
    for i in 0..rows {
        for j in 0..columns {
            let value = given(i, j).unwrap_or(0.0);
            largest = largest.max(value.abs());
            norm += value * value;
            z.put(i, j, value);
        }
    }
    // The step only decides the speed; a part of the largest singular value serves.
    let step = libm::sqrt(norm) / 20.0;
    let mut x = z.clone();
    for _ in 0..ITERATIONS {
        x = z.shrunk(step);
        let mut moved = 0.0f64;
        for i in 0..rows {
            for j in 0..columns {
                let reflected = 2.0 * x.get(i, j) - z.get(i, j);
                let change = given(i, j).unwrap_or(reflected) - x.get(i, j);
                moved = moved.max(change.abs());
                z.put(i, j, z.get(i, j) + change);
            }
        }
        if moved <= SETTLED * largest {
            break;
        }
    }
    (0..columns).map(|j| target[j].unwrap_or_else(|| x.get(rows - 1, j))).collect()
}

#[derive(Clone, Debug)]
struct Matrix {
    columns: usize,
    /// Row by row.
    cells: Vec<f64>,
}

impl Matrix {
    fn new(rows: usize, columns: usize) -> Self {
        Self { columns, cells: vec![0.0; rows * columns] }
    }

    fn rows(&self) -> usize {
        self.cells.len() / self.columns
    }

    fn get(&self, i: usize, j: usize) -> f64 {
        self.cells[i * self.columns + j]
    }

    fn put(&mut self, i: usize, j: usize, value: f64) {
        self.cells[i * self.columns + j] = value;
    }

    /// The same matrix with every singular value reduced by `by`, down to 0.
    fn shrunk(&self, by: f64) -> Self {
        let (squares, vectors) = eigen(self.gram());
        let n = self.columns;
        // X·V·diag(max(0, 1 − by/σ))·Vᵀ
        let mut filter = Self::new(n, n);
        for (k, square) in squares.iter().enumerate() {
            let sigma = libm::sqrt(square.max(0.0));
            if sigma <= by {
                continue;
            }
            let keep = 1.0 - by / sigma;
            for i in 0..n {
                for j in 0..n {
                    let add = keep * vectors.get(i, k) * vectors.get(j, k);
                    filter.put(i, j, filter.get(i, j) + add);
                }
            }
        }
        let mut out = Self::new(self.rows(), n);
        for i in 0..self.rows() {
            for j in 0..n {
                let sum = (0..n).map(|k| self.get(i, k) * filter.get(k, j)).sum();
                out.put(i, j, sum);
            }
        }
        out
    }

    /// Products of the columns with each other.
    fn gram(&self) -> Self {
        let n = self.columns;
        let mut gram = Self::new(n, n);
        for i in 0..n {
            for j in 0..n {
                gram.put(i, j, (0..self.rows()).map(|r| self.get(r, i) * self.get(r, j)).sum());
            }
        }
        gram
    }
}

/// Eigenvalues and, in columns, eigenvectors of a symmetric matrix (Jacobi's method).
fn eigen(mut a: Matrix) -> (Vec<f64>, Matrix) {
    let n = a.columns;
    let mut vectors = Matrix::new(n, n);
    (0..n).for_each(|i| vectors.put(i, i, 1.0));
    for _ in 0..SWEEPS {
        let mut turned = false;
        for p in 0..n {
            for q in p + 1..n {
                let off = a.get(p, q);
                let scale = libm::sqrt((a.get(p, p) * a.get(q, q)).abs());
                if off == 0.0 || off.abs() <= 1e-15 * scale {
                    continue;
                }
                turned = true;
                let theta = (a.get(q, q) - a.get(p, p)) / (2.0 * off);
                let t = theta.signum() / (theta.abs() + libm::sqrt(theta * theta + 1.0));
                let c = 1.0 / libm::sqrt(t * t + 1.0);
                rotate(&mut a, &mut vectors, (p, q), (c, t * c));
            }
        }
        if !turned {
            break;
        }
    }
    ((0..n).map(|i| a.get(i, i)).collect(), vectors)
}

/// Turns columns and rows `p` and `q` of `a`, and columns of `vectors`, by (cosine, sine).
fn rotate(a: &mut Matrix, vectors: &mut Matrix, (p, q): (usize, usize), (c, s): (f64, f64)) {
    for k in 0..a.columns {
        let (x, y) = (a.get(k, p), a.get(k, q));
        a.put(k, p, c * x - s * y);
        a.put(k, q, s * x + c * y);
    }
    for k in 0..a.columns {
        let (x, y) = (a.get(p, k), a.get(q, k));
        a.put(p, k, c * x - s * y);
        a.put(q, k, s * x + c * y);
        let (x, y) = (vectors.get(k, p), vectors.get(k, q));
        vectors.put(k, p, c * x - s * y);
        vectors.put(k, q, s * x + c * y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvalues_of_a_small_matrix() {
        // [[2, 1], [1, 2]]: 1 and 3.
        let (mut values, vectors) = eigen(Matrix { columns: 2, cells: vec![2.0, 1.0, 1.0, 2.0] });
        values.sort_by(f64::total_cmp);
        assert!((values[0] - 1.0).abs() < 1e-12 && (values[1] - 3.0).abs() < 1e-12, "{values:?}");
        assert!((vectors.get(0, 0).abs() - 0.5f64.sqrt()).abs() < 1e-12);
    }

    /// Completes `c × (1, 2, …, 10)` from its 1st and 8th entries beside 3 and 4 times the same.
    fn multiples(c: f64) -> Vec<f64> {
        let row = |c: f64| (1..=10).map(|n| c * f64::from(n)).collect::<Vec<_>>();
        let truth = row(c);
        let target: Vec<_> = (0..10).map(|j| (j == 0 || j == 7).then(|| truth[j])).collect();
        complete(&[row(3.0), row(4.0)], &target)
    }

    #[test]
    fn an_exact_low_rank_matrix_is_recovered() {
        // The true rank-1 row has the least nuclear norm (a subgradient certifies it) as long as
        // c ÷ √(3² + 4²) × √(320 ÷ 65) ≤ 1, with 65 and 320 the squares of the known and unknown
        // columns: up to c = 2.25.
        for (n, got) in (1..).zip(multiples(2.0)) {
            assert!((got - 2.0 * f64::from(n)).abs() < 1e-6, "{n}: {got}");
        }
        // Beyond, a row nearer to 0 has less.
        let bent = multiples(3.0);
        assert!((bent[0] - 3.0).abs() < 1e-9 && bent[9] < 29.0, "{bent:?}");
    }

    /// The matrix of `MatrixCompletion.m` (github.com/nabavinejad/DNNScaler): latency in ms with 1
    /// to 10 instances; the video model's rows are in 0.1 s.
    const PUBLISHED: [[f64; 10]; 18] = [
        [10.0, 9.0, 8.0, 7.0, 5.0, 5.0, 5.0, 6.0, 7.0, 7.0],
        [10.0, 9.0, 9.0, 7.0, 5.0, 6.0, 7.0, 8.0, 8.0, 10.0],
        [10.0, 10.0, 9.0, 7.0, 8.0, 10.0, 11.0, 13.0, 15.0, 16.0],
        [10.0, 14.0, 18.0, 24.0, 29.0, 35.0, 41.0, 47.0, 53.0, 59.0],
        [10.0, 11.0, 14.0, 17.0, 21.0, 25.0, 29.0, 34.0, 38.0, 42.0],
        [7.0, 9.0, 10.0, 13.0, 16.0, 20.0, 23.0, 26.0, 29.0, 32.0],
        [7.0, 7.0, 10.0, 12.0, 13.0, 15.0, 17.0, 20.0, 22.0, 24.0],
        [5.0, 5.0, 4.0, 5.0, 4.0, 4.0, 5.0, 6.0, 6.0, 7.0],
        [5.0, 5.0, 4.0, 4.0, 5.0, 6.0, 7.0, 7.0, 8.0, 9.0],
        [6.0, 5.0, 5.0, 6.0, 8.0, 10.0, 11.0, 13.0, 14.0, 16.0],
        [10.0, 11.0, 13.0, 17.0, 21.0, 25.0, 29.0, 34.0, 38.0, 42.0],
        [11.03, 12.45, 16.29, 23.30, 23.14, 25.38, 33.74, 47.11, 50.38, 52.82],
        [9.77, 11.65, 15.71, 18.67, 21.70, 30.55, 37.14, 37.81, 53.62, 61.01],
        [11.0, 16.0, 22.0, 29.0, 36.0, 43.0, 51.0, 58.0, 66.0, 73.0],
        [22.0, 27.0, 25.0, 31.0, 38.0, 46.0, 52.0, 59.0, 66.0, 73.0],
        [28.0, 26.0, 29.0, 37.0, 41.0, 47.0, 55.0, 63.0, 71.0, 79.0],
        [10.0, 9.0, 10.0, 13.0, 16.0, 19.0, 23.0, 26.0, 29.0, 32.0],
        [10.0, 9.0, 10.0, 12.0, 13.0, 15.0, 17.0, 20.0, 22.0, 28.0],
    ];

    /// Row by row, the estimates of `Errors.csv` in the same repository for 2 to 7, 9 and 10
    /// instances, from which every row but these was left fully known.
    const ESTIMATES: [(usize, [f64; 8]); 4] = [
        (13, [14.7, 17.5, 25.6, 29.5, 31.5, 39.3, 53.3, 55.8]),
        (15, [23.3, 23.7, 30.1, 33.1, 35.3, 43.1, 57.4, 61.5]),
        (3, [12.7, 15.2, 21.7, 25.1, 27.4, 33.9, 45.6, 48.2]),
        (11, [13.9, 16.9, 22.5, 28.8, 33.1, 38.4, 47.7, 52.5]),
    ];

    #[test]
    fn the_published_estimates_come_out() {
        for (row, published) in ESTIMATES {
            let mut known: Vec<Vec<f64>> = PUBLISHED.iter().map(|r| r.to_vec()).collect();
            let truth = known.remove(row);
            let target: Vec<_> = (0..10).map(|j| (j == 0 || j == 7).then(|| truth[j])).collect();
            let ours = complete(&known, &target);
            let unseen = [1, 2, 3, 4, 5, 6, 8, 9];
            for (&j, theirs) in unseen.iter().zip(published) {
                let error = ours[j] / theirs - 1.0;
                assert!(error.abs() < 0.005, "row {row} n {}: {} for {theirs}", j + 1, ours[j]);
            }
        }
    }
}
