//! Products that become one launch, against the stand-in driver.

use cotenant_profiles::lower::Precision;
use cotenant_replay::cuda::{CudaDevice, Granularity};
use cotenant_replay::work::Task;
use cotenant_replay::{Device, DeviceError, Work};

use crate::stand_in::{alive, calls, with_stand_in};

#[test]
fn products_merge_into_one_batched_launch() {
    with_stand_in!("products_merge_into_one_batched_launch", &[], || {
        let mut gpu = CudaDevice::open(0, Granularity::Fine).unwrap();
        let queue = gpu.queue(gpu.whole(), 0).unwrap();
        let gemm =
            |m: u32, count: u32| Work::new(Task::Gemm { m, n: 64, k: 32, count }, Precision::Bf16);
        let (a, b) = (gpu.prepare(queue, &gemm(16, 1)), gpu.prepare(queue, &gemm(24, 3)));
        let (a, b) = (a.unwrap(), b.unwrap());
        let all = gpu.merge(queue, &[a, b]).unwrap();
        assert_eq!(gpu.merge(queue, &[b, a]).unwrap(), all, "made once");
        let before = calls().iter().filter(|c| *c == "cublasLtMatmul").count();
        gpu.launch(all).unwrap();
        let mut ended = Vec::new();
        gpu.wait(&mut ended).unwrap();
        assert_eq!(ended.len(), 1);
        let launched = calls().iter().filter(|c| *c == "cublasLtMatmul").count();
        assert_eq!(launched, before + 1, "one launch");
        assert!(calls().iter().any(|c| c == "  BATCH_COUNT 4"), "of four products");
        assert!(!calls().iter().any(|c| c.starts_with("  LIST")), "of two shapes: strided");
        let soft = Work::new(Task::Softmax { rows: 8, width: 64 }, Precision::Bf16);
        let soft = gpu.prepare(queue, &soft).unwrap();
        let error = gpu.merge(queue, &[a, soft]).unwrap_err().to_string();
        assert!(error.contains("only matrix products"), "{error}");
        assert!(gpu.merge(queue, &[]).is_err());
        drop(gpu);
        assert_eq!(alive(), (0, 0));
    });
}

/// The lists of addresses of the last launch: left, right, results, as the library calls them.
fn lists() -> Vec<Vec<u64>> {
    let calls = calls();
    let lists = calls.iter().filter_map(|c| c.strip_prefix("  LIST "));
    let read = |l: &str| l.split(' ').map(|a| u64::from_str_radix(a, 16).unwrap()).collect();
    let all: Vec<Vec<u64>> = lists.map(read).collect();
    all[all.len() - 3..].to_vec()
}

fn count(call: &str) -> usize {
    calls().iter().filter(|c| *c == call).count()
}

#[test]
fn products_of_one_shape_merge_where_they_are() {
    with_stand_in!("products_of_one_shape_merge_where_they_are", &[], || {
        let mut gpu = CudaDevice::open(0, Granularity::Fine).unwrap();
        let part = gpu.partition(0, 4).unwrap();
        let queue = gpu.queue(part, 0).unwrap();
        // Long enough that the host is back before it has ended: two thirds of a millisecond on 4 SMs.
        let gemm =
            |count: u32| Work::new(Task::Gemm { m: 520, n: 510, k: 500, count }, Precision::Fp16);
        let prepared = [1, 2, 1].map(|n| gpu.prepare(queue, &gemm(n)).unwrap());
        let [a, b, _] = prepared;
        let allocated = count("cuMemAlloc_v2");
        let merged = gpu.merge(queue, &prepared).unwrap();
        assert_eq!(count("cuMemAlloc_v2"), allocated + 2, "its lists and its workspace");
        assert_eq!(gpu.facts(merged).unwrap().name, "cublasLtMatmul by lists of addresses");
        let launched = count("cublasLtMatmul");
        gpu.launch(merged).unwrap();
        // What goes at once is not freed under the launch.
        gpu.release(merged).unwrap();
        assert_eq!(count("cublasLtMatmul"), launched + 1, "one launch");
        // cuBLAS's left matrix is the right one of rows: `k` times `n` halves each.
        let (found, size) = (lists(), [500 * 510, 520 * 500, 520 * 510].map(|n| 2 * n));
        for (list, size) in found.iter().zip(size) {
            assert_eq!(list.len(), 4, "of four products");
            assert_eq!(list[2], list[1] + size, "those of a batch lie one behind the other");
            assert!(list.windows(2).all(|w| w[1] >= w[0] + size), "none on another: {list:x?}");
        }
        // The second of a batch is 510000, 520000 and 530400 bytes behind the first.
        let aligned: Vec<String> = calls().into_iter().filter(|c| c.contains("ALIGNED")).collect();
        assert_eq!(aligned, ["  ALIGNED 16", "  ALIGNED 64", "  ALIGNED 32", "  ALIGNED 32"]);
        let twice = gpu.merge(queue, &[a, b, a]).unwrap();
        assert_eq!(count("cuMemAlloc_v2"), allocated + 2 + 5, "and operands of the second a");
        gpu.launch(twice).unwrap();
        let mut outputs = lists().remove(2);
        outputs.sort_unstable();
        outputs.dedup();
        assert_eq!(outputs.len(), 4, "each has a result of its own");
        gpu.release(a).unwrap();
        assert!(gpu.merge(queue, &[a, b, a]).is_err(), "a part is gone");
        gpu.launch(twice).unwrap();
        drop(gpu);
        assert_eq!(alive(), (0, 0), "{:#?}", calls());
    });
}

#[test]
fn the_check_of_a_merge_gives_every_part_its_own_numbers() {
    with_stand_in!("the_check_of_a_merge_gives_every_part_its_own_numbers", &[], || {
        let mut gpu = CudaDevice::open(0, Granularity::Fine).unwrap();
        let queue = gpu.queue(gpu.whole(), 0).unwrap();
        let gemm = |m| Work::new(Task::Gemm { m, n: 8, k: 8, count: 1 }, Precision::Fp32);
        let [a, b] = [8, 9].map(|m| gpu.prepare(queue, &gemm(m)).unwrap());
        let merged = gpu.merge(queue, &[a, a]).unwrap();
        // The stand-in computes nothing: zeros are as far off as the result is long.
        assert_eq!(gpu.check_merged(merged).unwrap(), 1.0);
        let padded = gpu.merge(queue, &[a, b]).unwrap();
        assert_eq!(gpu.facts(padded).unwrap().name, "cublasLtMatmul");
        assert!(gpu.check_merged(padded).unwrap_err().to_string().contains("strided"));
    });
}

/// Where the library refuses lists, the merge is the strided one; any other failure is an error.
fn merges_of_one_shape_with(test: &str, fail: &str, expected: Result<&str, i32>) {
    with_stand_in!(test, &[("FAKECUDA_FAIL", fail)], || {
        let mut gpu = CudaDevice::open(0, Granularity::Fine).unwrap();
        let queue = gpu.queue(gpu.whole(), 0).unwrap();
        let gemm = Work::new(Task::Gemm { m: 8, n: 8, k: 8, count: 1 }, Precision::Fp32);
        let one = gpu.prepare(queue, &gemm).unwrap();
        let merged = gpu.merge(queue, &[one, one]);
        match (merged, expected) {
            (Ok(merged), Ok(name)) => assert_eq!(gpu.facts(merged).unwrap().name, name),
            (Err(DeviceError::Call { code, .. }), Err(expected)) => assert_eq!(code, expected),
            (found, _) => panic!("{found:?}"),
        }
        drop(gpu);
        assert_eq!(alive(), (0, 0), "{:#?}", calls());
    });
}

// A plan sets two attributes of each of three layouts: the eighth is the first list's mode.
#[test]
fn an_old_library_merges_strided() {
    let fail = "cublasLtMatrixLayoutSetAttribute:7:8";
    merges_of_one_shape_with("an_old_library_merges_strided", fail, Ok("cublasLtMatmul"));
}

#[test]
fn a_library_without_such_a_product_merges_strided() {
    let (test, fail) =
        ("a_library_without_such_a_product_merges_strided", "cublasLtMatmulAlgoGetHeuristic:15:2");
    merges_of_one_shape_with(test, fail, Ok("cublasLtMatmul"));
}

#[test]
fn a_merge_that_fails_otherwise_is_an_error() {
    let (test, fail) =
        ("a_merge_that_fails_otherwise_is_an_error", "cublasLtMatmulAlgoGetHeuristic:14:2");
    merges_of_one_shape_with(test, fail, Err(14));
}
