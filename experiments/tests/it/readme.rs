//! What the README says of the policies is what the registry says.

use cotenant_sim::policy;

const BEGIN: &str = "<!-- policies: the registry's own words, checked by a test -->\n";
const END: &str = "<!-- end of policies -->";

/// `COTENANT_WRITE=1 cargo test -p cotenant readme` writes the table anew.
#[test]
fn the_policy_table_is_the_registry() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let rows: String = policy::ALL
        .iter()
        .map(|p| format!("| `{}` | {} | {} |\n", p.name, p.summary, p.source))
        .collect();
    let table = format!("| policy | what it does | based on |\n|---|---|---|\n{rows}");
    let (head, rest) = readme.split_once(BEGIN).expect("the README marks its policy table");
    let (written, tail) = rest.split_once(END).expect("the README marks the table's end");
    if std::env::var_os("COTENANT_WRITE").is_some() {
        std::fs::write(path, format!("{head}{BEGIN}{table}{END}{tail}")).unwrap();
        return;
    }
    assert_eq!(written, table, "COTENANT_WRITE=1 writes the table anew");
}
