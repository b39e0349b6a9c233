//! The README shows the example program as it is.
#![allow(missing_docs)]

#[test]
fn the_readme_shows_the_example_as_it_is() {
    let readme = include_str!("../../README.md");
    let example = include_str!("../examples/readme.rs");
    let (_, program) = example.split_once("\n\n").expect("a line that says what it is, then the program");
    assert!(readme.contains(program.trim()), "README.md and examples/examples/readme.rs differ");
}
