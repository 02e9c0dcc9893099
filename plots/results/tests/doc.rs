//! `docs/results.md` is what the tables of columns say.

#[test]
fn the_page_is_what_the_tables_say() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/results.md");
    let made = cotenant_results::markdown();
    if std::env::var_os("COTENANT_BLESS").is_some() {
        std::fs::write(&page, &made).expect("docs/ is writable");
    }
    let kept = std::fs::read_to_string(&page).expect("docs/results.md exists");
    assert!(kept == made, "docs/results.md is outdated: run this test with COTENANT_BLESS=1");
}
