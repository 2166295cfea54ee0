//! What the compiler says of a wrong interface: short, and at the user's own lines.

#[test]
#[ignore = "compares the words of one compiler version, and builds the crate once more"]
fn a_wrong_interface_is_refused_in_readable_words() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/interface_errors/*.rs");
}
