//! The dashboard's form. That programs show what it asks for is a test of the whole stack.

use std::collections::BTreeSet;

use serde_json::Value;

const DASHBOARD: &str = include_str!("../../../../deploy/grafana/evermq.json");

#[test]
fn panels_have_questions_titles_and_places_of_their_own() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 25);
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()));
        assert!(!panel["title"].as_str().unwrap().is_empty());
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for x in at("x")..at("x") + at("w") {
            assert!(x < 24, "{panel}");
            for y in at("y")..at("y") + at("h") {
                assert!(cells.insert((x, y)), "{} lies upon another panel", panel["title"]);
            }
        }
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        assert_eq!(targets.is_empty(), panel["type"] == "row", "{panel}");
        for target in targets {
            let question = target["expr"].as_str().unwrap();
            assert!(question.contains("cluster=~\"$cluster\""), "{question}");
            for (open, close) in [('(', ')'), ('{', '}')] {
                assert_eq!(question.matches(open).count(), question.matches(close).count(), "{question}");
            }
        }
    }
}
