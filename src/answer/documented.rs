//! `docs/refusals.md` is complete, in order, and says what the code says.

use crate::refusal::Refusal;

const DOCUMENT: &str = include_str!("../../docs/refusals.md");

/// The sections after the introduction: heading, and text.
fn sections() -> Vec<(&'static str, &'static str)> {
    let introduction = "What the caller sees";
    let all = DOCUMENT.split("\n## ").skip(1).filter_map(|section| section.split_once('\n'));
    all.filter(|(heading, _)| *heading != introduction).collect()
}

#[test]
fn every_refusal_has_its_section_in_order_and_no_other_has() {
    let documented: Vec<&str> = sections().into_iter().map(|(heading, _)| heading).collect();
    let codes: Vec<&str> = Refusal::ALL.iter().map(|why| why.code()).collect();
    assert_eq!(documented, codes);
}

#[test]
fn each_section_says_what_the_code_says() {
    for (&why, (code, text)) in Refusal::ALL.iter().zip(sections()) {
        for part in [
            format!("**{}** · who must act: `{}`\n", why.status(), why.blame().as_str()),
            format!("\n{}\n", why.meaning()),
            format!("The caller reads: `{}`\n", why.public()),
        ] {
            assert!(text.contains(&part), "{code}: {part:?} is missing in:\n{text}");
        }
    }
}

#[test]
fn each_section_says_what_to_do() {
    for (code, text) in sections() {
        let advice = text.split_once("**What to do.** ").map_or("", |(_, advice)| advice.trim());
        assert!(advice.len() > 20 && advice.ends_with('.'), "{code}: {advice:?}");
    }
}
