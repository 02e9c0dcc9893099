//! Exports of Nsight Systems, built to its documented schema as it prints it.

use std::path::Path;

use cotenant_profiles::import::{Range, Recording, StreamOptions, Tool};
use proptest::prelude::*;
use rusqlite::Connection;

use super::databases;
use super::{alone_ns, fixture, import, launches_and_ns, options};

#[test]
fn a_full_export_gives_ranges_host_times_copies_and_the_gpu() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report #1.sqlite");
    databases::nsys(&path);
    let read = super::read(Tool::Nsys, &path).unwrap();
    // Its device 0 is the machine's second GPU.
    assert_eq!(read.gpu(None).unwrap().unwrap().name, "NVIDIA H100 80GB HBM3");
    let range = Some(Range::Mark("pass".to_owned()));
    let import =
        import(Tool::Nsys, &path, &StreamOptions { range, batch: 1, ..options() }).unwrap();
    // 18 µs and the two passes in the middle, 1 and 2 ns more per kernel.
    assert_eq!(launches_and_ns(&import), (6, 3 * 4_001 + 3 * 2_001), "{:?}", import.notes);
    assert_eq!(import.dropped["of other processes"], 2);
    assert_eq!(import.dropped["outside the passes"], 1);
    let model = &import.profile.models["net"];
    assert_eq!(model.input_per_item.0, 1_000_000);
    // From the begin of the copy to the end of the last kernel.
    let took = 25_000 + 250_000 + 2_002;
    assert!(alone_ns(&import).abs_diff(took) * 100 < took, "{} {took}", alone_ns(&import));
    assert_eq!(import.profile.provenance["tool"], "Nsight Systems (SQLite export, schema 3.24.14)");
    let gemm = &import.profile.kernels[0];
    assert_eq!(
        (gemm.name.as_str(), gemm.block, gemm.smem_bytes),
        ("void gemm<128, 64>(float*)", 256, 4096)
    );
}

#[test]
fn old_exports_lack_columns_and_tables() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.sqlite");
    let db = Connection::open(&path).unwrap();
    // As before 2020: no process, no registers, the name as text, other order of columns.
    db.execute_batch(
        "CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT);
         CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (gridX INT, gridY INT, gridZ INT, blockX INT, blockY INT,
           blockZ INT, shortName TEXT, deviceId INT, streamId INT, end INT, start INT);",
    )
    .unwrap();
    for i in 0..8 {
        let (at, name) = (i * 100_000, if i % 2 == 0 { "a" } else { "b" });
        db.execute(
            "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES (8, 1, 1, 64, 1, 1, ?, 0, 7, ?, ?)",
            (name, at + 6_000, at + 1_000),
        )
        .unwrap();
    }
    let import = import(Tool::Nsys, &path, &options()).unwrap();
    assert_eq!(launches_and_ns(&import), (2, 10_000));
}

/// Versions differ by their columns: any but the times, the places and one name may be missing.
#[test]
fn a_column_more_or_less_costs_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.sqlite");
    databases::nsys(&whole);
    for table in ["CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_RUNTIME", "NVTX_EVENTS"] {
        let columns: Vec<String> = {
            let db = Connection::open(&whole).unwrap();
            let mut query = db.prepare("SELECT name FROM pragma_table_info(?1)").unwrap();
            query.query_map([table], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        for column in columns {
            if ["start", "end", "demangledName", "textId"].contains(&column.as_str()) {
                continue;
            }
            let path = folder.path().join("less.sqlite");
            std::fs::copy(&whole, &path).unwrap();
            let db = Connection::open(&path).unwrap();
            let sql = format!(
                "ALTER TABLE {table} DROP COLUMN {column}; ALTER TABLE {table} ADD COLUMN new_{column} TEXT;"
            );
            db.execute_batch(&sql).unwrap();
            drop(db);
            let range = Some(Range::Mark("pass".to_owned()));
            let options = StreamOptions { range, batch: 1, ..options() };
            let import = import(Tool::Nsys, &path, &options);
            let import = import.unwrap_or_else(|e| panic!("{table}.{column}: {e}"));
            let (n, ns) = launches_and_ns(&import);
            // Without the process, the two launches of the other one are part of the first pass alone.
            assert!(
                (n, ns) == (6, 18_006) || column == "globalPid" && n == 6,
                "{table}.{column}: {n} {ns}"
            );
        }
    }
}

#[test]
fn large_exports_say_how_far_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("many.sqlite");
    databases::nsys(&path);
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "INSERT INTO StringIds WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
         SELECT i, 'x' FROM n",
    )
    .unwrap();
    drop(db);
    let mut seen: Vec<u64> = Vec::new();
    Recording::read(Tool::Nsys, &path, &mut |bytes| seen.push(bytes)).unwrap();
    let size = std::fs::metadata(&path).unwrap().len();
    assert!(seen.len() >= 4 && seen.is_sorted() && seen[0] < size / 2, "{seen:?} of {size}");
    assert_eq!(seen.last(), Some(&size));
}

#[test]
fn copies_of_other_processes_are_not_the_models() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("two.sqlite");
    databases::nsys(&path);
    let taken = |path: &Path| {
        let range = Some(Range::Mark("pass".to_owned()));
        let import = import(Tool::Nsys, path, &StreamOptions { range, batch: 1, ..options() });
        import.unwrap().profile.models["net"].input_per_item.0
    };
    assert_eq!(taken(&path), 1_000_000);
    let db = Connection::open(&path).unwrap();
    db.execute_batch(&format!(
        "INSERT INTO CUPTI_ACTIVITY_KIND_MEMCPY SELECT start + 100, end, deviceId, 2, 9, correlationId + 7000, {},
            bytes * 9, copyKind, deprecatedSrcId, srcKind, dstKind, graphNodeId FROM CUPTI_ACTIVITY_KIND_MEMCPY",
        (1i64 << 48) | (777 << 24)
    ))
    .unwrap();
    drop(db);
    assert_eq!(taken(&path), 1_000_000);
}

#[test]
fn a_graph_and_its_kernels_count_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("graph.sqlite");
    databases::nsys(&path);
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "CREATE TABLE CUPTI_ACTIVITY_KIND_GRAPH_TRACE (start INTEGER, end INTEGER, deviceId INTEGER, graphId INTEGER,
            contextId INTEGER, streamId INTEGER, correlationId INTEGER, globalPid INTEGER);
         UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET graphNodeId = 5 WHERE correlationId > 0;
         INSERT INTO CUPTI_ACTIVITY_KIND_GRAPH_TRACE
            SELECT start, end, deviceId, 1, contextId, streamId, correlationId, globalPid
            FROM CUPTI_ACTIVITY_KIND_KERNEL WHERE correlationId > 0",
    )
    .unwrap();
    drop(db);
    let range = Some(Range::Mark("pass".to_owned()));
    let import = import(Tool::Nsys, &path, &StreamOptions { range, ..options() }).unwrap();
    assert_eq!(launches_and_ns(&import), (6, 18_006), "{:?}", import.notes);
    assert!(import.dropped["graphs whose kernels are recorded, too"] >= 24, "{:?}", import.dropped);
}

#[test]
fn rows_in_a_write_ahead_log_count() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.sqlite");
    std::fs::copy(fixture("nsys.sqlite"), &path).unwrap();
    let db = Connection::open(&path).unwrap();
    db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
    db.execute("UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET deviceId = 3", []).unwrap();
    assert!(folder.path().join("r.sqlite-wal").exists());
    assert_eq!(super::read(Tool::Nsys, &path).unwrap().used()[0].index, 3);
}

#[test]
fn what_is_no_export_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n.sqlite");
    let error = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        import(Tool::Nsys, &path, &options()).unwrap_err()
    };
    let text = error(b"PK and something else that is not a database at all");
    assert!(text.contains("is not an SQLite export (nsys export --type sqlite), or CSV"), "{text}");
    let whole = std::fs::read(fixture("nsys.sqlite")).unwrap();
    let cut = error(&whole[..whole.len() / 2]);
    assert!(cut.contains("malformed"), "{cut}");
    std::fs::remove_file(&path).unwrap();
    Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE StringIds (id INTEGER, value TEXT)")
        .unwrap();
    let bare = import(Tool::Nsys, &path, &options()).unwrap_err();
    assert!(bare.contains("CUPTI_ACTIVITY_KIND_KERNEL: `a database without this table`"), "{bare}");
    assert!(bare.contains("--trace=cuda"), "{bare}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damaged_exports_are_answers_not_panics(at in 0usize..1 << 16, to in any::<u8>(), n in 1usize..64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.sqlite");
        let mut bytes = std::fs::read(fixture("nsys.sqlite")).unwrap();
        let at = at % bytes.len();
        let end = (at + n).min(bytes.len());
        bytes[at..end].fill(to);
        std::fs::write(&path, &bytes).unwrap();
        let _ = import(Tool::Nsys, &path, &options());
    }
}
