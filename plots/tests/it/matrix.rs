//! The matrix of a tuner, from its file alone.

use std::fs;

use cotenant_plots::draw_matrix;

const HEAD: &str = "# cotenant-tune v1\n# source=analytic\n\
                    shape,tuned_at_cus,run_at_cus,variant,duration_ns,best_ns,slowdown\n";
const SHAPE: &str = "gemm,32,32,a,9,9,1.000000\n";
const SUM: &str = "*,32,32,,80,80,1.000000\n*,32,132,,75,60,1.250000\n\
                   *,132,32,,120,80,1.500000\n*,132,132,,60,60,1.000000\n";

#[test]
fn the_sum_over_all_shapes_is_drawn_with_its_note() {
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("matrix.csv");
    fs::write(&table, format!("{HEAD}{SHAPE}{SUM}")).unwrap();
    let files = draw_matrix(&table, dir.path(), "NOT A MEASUREMENT").unwrap();
    assert_eq!(files.len(), 3);
    let svg = fs::read_to_string(dir.path().join("plots/matrix.svg")).unwrap();
    for text in ["1.25", "1.5", "Tuned at (CUs)", "Run at (CUs)", "NOT A MEASUREMENT"] {
        assert!(svg.contains(text), "{text}");
    }
    fs::write(&table, format!("{HEAD}{SHAPE}")).unwrap();
    let error = draw_matrix(&table, dir.path(), "").unwrap_err().to_string();
    assert!(error.contains("no row of all shapes (`*`)"), "{error}");
}
