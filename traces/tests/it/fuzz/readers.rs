//! The readers of traces, each with the input that its mutations begin with.

use std::path::Path;

use super::turns::Reader;
use cotenant_traces::{ReadOptions, read};

/// Rows that are read of one input: a legal count may ask for very many.
const ROWS: usize = 1000;

/// Reads a file as this format, with other options for every fourth input.
fn rows(format: &str, bytes: &[u8]) -> Result<String, String> {
    thread_local! {
        static FOLDER: tempfile::TempDir = tempfile::tempdir().unwrap();
    }
    FOLDER.with(|folder| {
        // What is read by its path goes through a file: `TMPDIR=/dev/shm` keeps it off the disk.
        let path = folder.path().join("conv.csv");
        std::fs::write(&path, bytes).unwrap();
        let sum = bytes.iter().fold(0u32, |s, b| s.wrapping_mul(31).wrapping_add(u32::from(*b)));
        // A count of millions is legal and takes as long as it says: few of them are tried.
        let large = bytes.split(|b| !b.is_ascii_digit()).any(|digits| digits.len() > 6);
        if large && ["counts", "maf1"].contains(&format) && sum % 4096 > 0 {
            return Ok("large".to_owned());
        }
        let (sort, keep_extra) = (sum % 4 == 1, sum % 4 == 2);
        let drop_failures = sum % 4 == 3;
        let options = ReadOptions { sort, keep_extra, drop_failures, ..ReadOptions::default() };
        answer(format, &path, &options)
    })
}

fn answer(format: &str, path: &Path, options: &ReadOptions) -> Result<String, String> {
    let mut stream = read::open(path, Some(format), options).map_err(|e| e.to_string())?;
    let (mut n, mut last) = (0, None);
    for row in stream.by_ref().take(ROWS) {
        let row = row.map_err(|e| e.to_string())?;
        assert!(last <= Some(row.arrival), "{format}: rows go back in time");
        assert!(row.items > 0 && row.work.is_finite() && row.work > 0.0, "{format}: {row:?}");
        last = Some(row.arrival);
        n += 1;
    }
    let counts = stream.tally.counts();
    Ok(format!("{} {:?} {}", n.min(9), counts.dropped.keys(), counts.warnings.len()))
}

pub(crate) fn readers() -> Vec<(&'static str, Vec<u8>, Reader)> {
    let canonical = "# cotenant-trace v1\n# duration_ns=9000\narrival_ns,tenant,model,items,slo_ns,prio,work,\
        tokens_in,tokens_out,session,x_a\n0,a,m,1,50,0,1,5,6,s,q\n10,b,m,2,,1,0.5,,,,\n";
    let counts = "# cotenant-counts v1\n# bin_ns=1000\nbin,tenant,model,count\n0,a,m,2\n1,a,m,1\n";
    let rates = "# cotenant-counts v1\n# bin_ns=1000000000\nbin,tenant,model,rate_rps,cv,dist,p1,p2\n\
        0,a,m,3,1,Gamma,1,0.3\n1,a,m,2,1.5,Weibull,0.8,0.5\n";
    let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n\
        2023-11-16T18:15:50Z,10,5\n2023-11-16 18:15:51+00:00,1,2\n";
    let maf1 =
        "HashOwner,HashApp,HashFunction,Trigger,1,2,3\no,a,f,http,1,0,2\no,a,g,timer,1,1,1\n";
    let maf2 = "app,func,end_timestamp,duration\na,f,10.5,1.25\na,g,11,0\nb,f,12.25,3e-1\n";
    let burst = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
        5,1,2.5,ChatGPT,100,20,120,API log\n45,2,,GPT-4,7,0,7,Conversation log\n";
    let vidur =
        "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,374,44\n5.8926549999999995,10,5\n";
    let splitwise = "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n\
        0,2,0,1,1,4096,32\n1,2,7,3.5,2,2048,8\n";
    let genai = "gmt_create,predict_type,predict_status,exec_time_seconds,groupId,prompt_length,\
        negative_prompt_length,num_images_per_prompt,num_inference_steps,checkpoint_model_version_id,num_lora\n\
        2024-11-15 16:57:50,TXT_2_IMG,SUCCEED,32.0,G0,63.0,26.0,1.0,30.0,M0,0\n\
        2024-11-15 18:16:14,TXT_2_IMG,FAILED,43.0,G1,93.0,,8.0,60.0,M1,0\n";
    let mooncake = "{\"timestamp\": 0, \"input_length\": 6758, \"output_length\": 500, \"hash_ids\": [0, 1]}\n\
        {\"timestamp\": 3000, \"input_length\": 7, \"output_length\": 5, \"hash_ids\": []}\n";
    let bailian = "{\"chat_id\": 1, \"parent_chat_id\": -1, \"timestamp\": 0.5, \"input_length\": 10, \
        \"output_length\": 3, \"type\": \"text\", \"turn\": 1, \"hash_ids\": [1]}\n\
        {\"chat_id\": 2, \"parent_chat_id\": 1, \"timestamp\": 2.25, \"input_length\": 12, \"output_length\": 3, \
        \"type\": \"text\", \"turn\": 2, \"hash_ids\": [1, 2]}\n";
    let disb = r#"{"time":2,"tasks":[{"id":"a","load":{"type":"trace","trace":[10,20]},"client":{"model_name":"m","batch_size":2}},
        {"id":"b","load":{"type":"periodic","frequency":5,"priority":1},"client":{"model_name":"m"}},
        {"id":"c","load":{"type":"poisson","frequency":3.5},"client":{"model_name":"n"}},
        {"id":"d","load":{"type":"continuous"},"client":{"model_name":"n"}}]}"#;
    let servegen =
        "0,3.5,1.2,Gamma,0.7,0.4\n600,0,0,,,\n1200,0.5,1,Weibull,1,2\n".as_bytes().to_vec();
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        ("canonical", text(canonical), |b| rows("canonical", b)),
        ("counts", text(counts), |b| rows("counts", b)),
        ("counts of rates", text(rates), |b| rows("counts", b)),
        ("azure-llm", text(azure), |b| rows("azure-llm", b)),
        ("maf1", text(maf1), |b| rows("maf1", b)),
        ("maf2", text(maf2), |b| rows("maf2", b)),
        ("burstgpt", text(burst), |b| rows("burstgpt", b)),
        ("vidur", text(vidur), |b| rows("vidur", b)),
        ("splitwise", text(splitwise), |b| rows("splitwise", b)),
        ("genai", text(genai), |b| rows("genai", b)),
        ("mooncake", text(mooncake), |b| rows("mooncake", b)),
        ("bailian", text(bailian), |b| rows("bailian", b)),
        ("disb", text(disb), |b| rows("disb", b)),
        ("servegen", servegen, |b| rows("servegen", b)),
        ("intervals", text("1000\n20\n0\n5\n"), |b| rows("intervals", b)),
        ("intervals of seconds", text("[0.5, 1.25, 0, 3e-1]"), |b| rows("intervals", b)),
    ]
}
