//! AIConfigurator's operator tables: the zoo's models take the measured time of their products.

use std::collections::BTreeMap;

use cotenant_profiles::import::{Operators, aiconfigurator, aiconfigurator_layers};
use cotenant_profiles::lower::Precision;
use cotenant_profiles::steps::TimedLayer;
use cotenant_profiles::zoo;
use cotenant_profiles::zoo::decoder::{StepShape, decoder};

use super::device;

#[test]
fn products_take_their_measured_time_and_keep_the_shape_of_their_curves() {
    let spec = zoo::find("bert-base").unwrap();
    let computed = {
        let empty =
            Operators { products: BTreeMap::from([([1, 1, 1], 1.0)]), ..Operators::default() };
        aiconfigurator("t", &empty, &device(), &spec, 1, Precision::Bf16).unwrap().profile
    };
    // The first linear layer that the model has.
    let id = &computed.kernels.iter().find(|k| k.id.starts_with("linear-")).unwrap().id;
    let numbers: Vec<u32> =
        id["linear-".len()..].split(['x', '+', '-']).take(3).map(|n| n.parse().unwrap()).collect();
    let shape = [numbers[0], numbers[1], numbers[2]];
    let operators = Operators {
        products: BTreeMap::from([
            (shape, 7_000.0),
            ([shape[0], 2 * shape[1], shape[2]], 12_000.0),
        ]),
        attention: BTreeMap::from([([12, 128, 64], 9_000.0)]),
        rows: 4,
        ..Operators::default()
    };
    let import = aiconfigurator("t", &operators, &device(), &spec, 1, Precision::Bf16).unwrap();
    let kernel = import.profile.kernels.iter().find(|k| k.id == *id).unwrap();
    assert_eq!(kernel.curve.at(132), 7_000);
    assert!(kernel.curve.at(8) > 7_000);
    assert!(import.notes[0].contains("measured"), "{:?}", import.notes);
    let none = Operators::default();
    let error = aiconfigurator("t", &none, &device(), &spec, 1, Precision::Bf16).unwrap_err();
    assert_eq!(error.to_string(), "t:1: latency: `no row` is not a product in bf16");
}

#[test]
fn tables_are_read_as_parquet_and_as_csv() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gemm_perf.txt");
    let text = "framework,version,device,op_name,kernel_source,gemm_dtype,m,n,k,latency\n\
                V,1,H100,gemm,a,bfloat16,128,768,768,0.01\nV,1,H100,gemm,b,bfloat16,128,768,768,0.008\n\
                V,1,H100,gemm,b,fp8,128,768,768,0.004\n";
    std::fs::write(&path, text).unwrap();
    let mut read = Operators::default();
    read.read(&path, Precision::Bf16).unwrap();
    assert_eq!((read.rows, read.products[&[128, 768, 768]]), (3, 8_000.0));
    std::fs::write(&path, "a,b\n1,2\n").unwrap();
    let error = Operators::default().read(&path, Precision::Bf16).unwrap_err().to_string();
    let tables =
        "or experts (num_tokens, hidden_size, inter_size, topk, num_experts) with `latency`";
    assert!(error.ends_with(tables), "{error}");
    let Some(data) = std::env::var_os("COTENANT_PUBLIC_DATA") else { return };
    let folder = std::path::PathBuf::from(data).join("profiles/aiconfigurator/data/a100_sxm");
    let table = folder.join("gemm/vllm/0.14.0/gemm_perf.parquet");
    if table.exists() {
        let mut read = Operators::default();
        read.read(&table, Precision::Fp16).unwrap();
        assert_eq!(read.rows, 9_240);
        let spec = zoo::find("bert-base").unwrap();
        let a100 = cotenant_profiles::Device::builtin("a100-sxm-80").unwrap();
        let import = aiconfigurator("t", &read, &a100, &spec, 1, Precision::Fp16).unwrap();
        assert!(import.profile.models.values().next().is_some(), "{:?}", import.notes);
    }
}

/// Found by mutations: sizes of 0 and latencies beyond reason made factors that are not numbers.
#[test]
fn rows_that_cannot_be_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gemm_perf.csv");
    let head = "gemm_dtype,m,n,k,latency\nbfloat16,128,768,768,0.01\n";
    let rows = ["0,768,768,0.01", "8,-1,768,0.01", "8,768,1.5,0.01", "8,8,8,1e308", "8,8,8,NaN"];
    let rows: String = rows.iter().map(|r| format!("bfloat16,{r}\n")).collect();
    std::fs::write(&path, format!("{head}{rows}")).unwrap();
    let mut read = Operators::default();
    read.read(&path, Precision::Bf16).unwrap();
    assert_eq!((read.rows, read.unread), (1, 5));
    let spec = zoo::find("bert-base").unwrap();
    let import = aiconfigurator("t", &read, &device(), &spec, 1, Precision::Bf16).unwrap();
    let unread = "without a latency, or without the sizes of a product or of attention";
    assert_eq!((import.rows_in, import.rows_used, import.dropped[unread]), (6, 1, 5));
}

#[test]
fn experts_take_the_mean_over_how_tokens_spread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("moe_perf.csv");
    let head = "moe_dtype,num_tokens,hidden_size,inter_size,topk,num_experts,moe_tp_size,moe_ep_size,\
                distribution,latency\n";
    let rows = [
        "bfloat16,64,2048,768,8,128,1,1,balanced,0.4",
        "bfloat16,64,2048,768,8,128,1,1,power_law_1.2,0.6",
        "bfloat16,64,2048,768,8,128,2,1,balanced,0.2", // two GPUs
        "fp8,64,2048,768,8,128,1,1,balanced,0.1",
        "bfloat16,64,2048,512,8,256,1,1,balanced,0.3", // another model's
        "bfloat16,64,2048,,8,128,1,1,balanced,0.3",
    ];
    std::fs::write(&path, format!("{head}{}\n", rows.join("\n"))).unwrap();
    let mut read = Operators::default();
    read.read(&path, Precision::Bf16).unwrap();
    assert_eq!((read.rows, read.unread, read.experts.len()), (5, 1, 2));
    read.products = BTreeMap::from([([64, 4096, 2048], 15_000.0)]);
    let qwen = decoder("qwen3-30b-a3b").unwrap();
    let layers = aiconfigurator_layers("t", &read, &device(), &qwen, Precision::Bf16);
    let (import, _) = layers.unwrap();
    assert_eq!(import.times.rows[&TimedLayer::Moe], BTreeMap::from([(64, 500_000)]));
    let llama = decoder("llama-3.1-8b").unwrap();
    let layers = aiconfigurator_layers("t", &read, &device(), &llama, Precision::Bf16);
    assert!(!layers.unwrap().0.times.rows.contains_key(&TimedLayer::Moe));
}

#[test]
fn layers_of_a_decoder_take_the_times_of_their_shapes() {
    let llama = decoder("llama-3.1-8b").unwrap();
    let operators = Operators {
        products: BTreeMap::from([([1, 6144, 4096], 15_000.0), ([64, 4096, 4096], 15_000.0)]),
        calls: BTreeMap::from([
            ([8, 1, 1024, 32, 8, 128], 20_000.0),
            ([8, 1, 1024, 64, 8, 128], 30_000.0),
            ([2, 512, 512, 32, 8, 128], 90_000.0),
        ]),
        rows: 5,
        ..Operators::default()
    };
    let read = aiconfigurator_layers("t", &operators, &device(), &llama, Precision::Bf16);
    let (import, [measured, nearby]) = read.unwrap();
    assert_eq!(import.times.rows[&TimedLayer::QkvProj][&1], 15_000);
    assert_eq!(import.times.rows[&TimedLayer::OProj][&64], 15_000);
    let decode = StepShape::new(&[], &[1024; 8]);
    assert_eq!(import.times.attention[&(decode.prefill, decode.decode)], 20_000);
    let prefill = StepShape::new(&[(512, 512); 2], &[]);
    assert_eq!(import.times.attention[&(prefill.prefill, prefill.decode)], 90_000);
    // Two products and two calls of this very shape; eight products from those.
    assert_eq!([measured, nearby], [4, 8]);
    assert_eq!((import.rows_in, import.rows_used), (5, 5));
    let none = Operators::default();
    let error = aiconfigurator_layers("t", &none, &device(), &llama, Precision::Bf16).unwrap_err();
    assert_eq!(error.to_string(), "t:1: latency: `no row` is not a product in bf16");
}
