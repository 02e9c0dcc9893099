//! Kubernetes files against Kubernetes' own schemas, where Python's `kubernetes-validate` is
//! installed (`pip install kubernetes-validate`).

use std::process::Command;

use super::{sharings, three};

#[test]
fn kubernetes_files_keep_to_its_schemas() {
    let there = Command::new("python3").args(["-c", "import kubernetes_validate"]).output();
    if !there.is_ok_and(|o| o.status.success()) {
        eprintln!("skipped: Python has no kubernetes-validate");
        return;
    }
    let dir = std::env::temp_dir().join(format!("cotenant-deploy-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let mut paths = vec![];
    for (i, sharing) in sharings().into_iter().enumerate() {
        for file in cotenant_deploy::emit(&three(sharing)).unwrap() {
            let named = ["kubernetes.yaml", "dra.yaml", "kai.yaml", "hami.yaml"];
            if named.contains(&file.path.as_str()) {
                let path = dir.join(format!("{i}-{}", file.path));
                std::fs::write(&path, &file.text).unwrap();
                paths.push(path);
            }
        }
    }
    let program = "import sys, yaml, kubernetes_validate as k\n\
                   for f in sys.argv[1:]:\n    for d in yaml.safe_load_all(open(f)):\n        k.validate(d, '1.34', strict=True)\n";
    let said = Command::new("python3").args(["-c", program]).args(&paths).output().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}
