//! The story of an adventure as a document, and what makes it a valid one (design, "Facts of the game").

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `adventures.content`: nodes, the connections between them, and where the story starts. Unknown fields are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AdventureContent {
    /// Scenes of the story.
    #[serde(default)]
    pub nodes: Vec<Node>,
    /// Ways from one node to another.
    #[serde(default)]
    pub connections: Vec<Connection>,
    /// Id of the node that the story starts at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Whatever else the client keeps; kept as it is.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What happens at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeKind {
    /// The Seer tells.
    Story,
    /// The players choose: two ways on or more.
    Decision,
    /// A riddle or a task.
    Challenge,
    /// A fight: one enemy or more.
    Combat,
    /// A roll decides.
    Check,
}

/// One scene of the story.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Node {
    /// Its name in connections, its own within the adventure.
    pub id: String,
    /// What happens there.
    #[serde(rename = "type", alias = "kind")]
    pub kind: NodeKind,
    /// Heading.
    #[serde(default)]
    pub title: String,
    /// What the Seer reads aloud.
    #[serde(default)]
    pub text: String,
    /// Names or ids of the creatures met in a combat.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enemies: Vec<Value>,
    /// Whatever else the client keeps; kept as it is.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A way from one node to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Connection {
    /// Id of the node that it leaves.
    pub from: String,
    /// Id of the node that it leads to.
    pub to: String,
    /// What a player chooses who takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Whatever else the client keeps; kept as it is.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One thing that is wrong with the content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct ValidationError {
    /// Id of the node that it is at; none where it is not at one.
    pub node: Option<String>,
    /// What is wrong.
    pub kind: ValidationErrorKind,
}

/// What can be wrong with the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ValidationErrorKind {
    /// The document has not the shape of an adventure.
    Unreadable,
    /// No start is named, or no node has the name.
    NoStart,
    /// Two nodes have this id.
    DuplicateNode,
    /// No way leads here from the start.
    Unreachable,
    /// A connection leaves or reaches a node that does not exist; the fault is at the node that does not.
    DanglingConnection,
    /// No node ends the story.
    NoEnding,
    /// A decision with fewer than two ways on.
    TooFewChoices,
    /// A combat without an enemy.
    NoEnemy,
}

impl AdventureContent {
    /// The shortest valid story: one node, where it starts and ends.
    #[must_use]
    pub fn single_scene(text: &str) -> Self {
        let node = Node {
            id: "start".to_owned(),
            kind: NodeKind::Story,
            title: String::new(),
            text: text.to_owned(),
            enemies: Vec::new(),
            extra: Map::new(),
        };
        Self { nodes: vec![node], start: Some("start".to_owned()), ..Default::default() }
    }

    /// Everything that is wrong, in the order of the nodes; empty for a valid adventure.
    #[must_use]
    pub fn validate(&self) -> Vec<ValidationError> {
        let mut faults = Vec::new();
        let mut fault = |node: Option<&str>, kind| {
            faults.push(ValidationError { node: node.map(str::to_owned), kind });
        };

        let mut known = HashSet::new();
        for node in &self.nodes {
            if !known.insert(node.id.as_str()) {
                fault(Some(&node.id), ValidationErrorKind::DuplicateNode);
            }
        }
        let mut ways: HashMap<&str, Vec<&str>> = HashMap::new();
        for Connection { from, to, .. } in &self.connections {
            for end in [from, to] {
                if !known.contains(end.as_str()) {
                    fault(Some(end), ValidationErrorKind::DanglingConnection);
                }
            }
            ways.entry(from).or_default().push(to);
        }
        let ways_on = |node: &Node| ways.get(node.id.as_str()).map_or(0, Vec::len);

        let start = self.start.as_deref().filter(|start| known.contains(start));
        let mut reached = HashSet::new();
        match start {
            None => fault(None, ValidationErrorKind::NoStart),
            Some(start) => {
                let mut ahead = vec![start];
                while let Some(node) = ahead.pop() {
                    if reached.insert(node) {
                        ahead.extend(ways.get(node).into_iter().flatten());
                    }
                }
            }
        }
        for node in &self.nodes {
            if start.is_some() && !reached.contains(node.id.as_str()) {
                fault(Some(&node.id), ValidationErrorKind::Unreachable);
            }
            match node.kind {
                NodeKind::Decision if ways_on(node) < 2 => {
                    fault(Some(&node.id), ValidationErrorKind::TooFewChoices);
                }
                NodeKind::Combat if node.enemies.is_empty() => {
                    fault(Some(&node.id), ValidationErrorKind::NoEnemy);
                }
                _ => {}
            }
        }
        if !self.nodes.iter().any(|node| ways_on(node) == 0 && node.kind != NodeKind::Decision) {
            fault(None, ValidationErrorKind::NoEnding);
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{AdventureContent, ValidationError, ValidationErrorKind};

    fn content(value: serde_json::Value) -> AdventureContent {
        serde_json::from_value(value).unwrap()
    }

    fn sound() -> serde_json::Value {
        json!({
            "start": "gate",
            "nodes": [
                { "id": "gate", "type": "decision", "text": "Left or right?" },
                { "id": "left", "type": "combat", "enemies": ["wolf"] },
                { "id": "right", "type": "story" },
            ],
            "connections": [{ "from": "gate", "to": "left" }, { "from": "gate", "to": "right" }],
        })
    }

    fn faults_after(change: impl FnOnce(&mut serde_json::Value)) -> Vec<ValidationError> {
        let mut value = sound();
        change(&mut value);
        content(value).validate()
    }

    fn at(node: &str, kind: ValidationErrorKind) -> ValidationError {
        ValidationError { node: Some(node.to_owned()), kind }
    }

    #[test]
    fn a_sound_story_has_no_fault() {
        assert_eq!(content(sound()).validate(), []);
        assert_eq!(AdventureContent::single_scene("Once.").validate(), []);
    }

    #[test]
    fn every_fault_names_its_node() {
        assert_eq!(
            faults_after(|c| c["start"] = json!("nowhere")),
            [ValidationError { node: None, kind: ValidationErrorKind::NoStart }]
        );
        assert_eq!(faults_after(|c| c["nodes"][1]["enemies"] = json!([])), [at("left", ValidationErrorKind::NoEnemy)]);
        assert_eq!(
            faults_after(|c| c["connections"] = json!([{ "from": "gate", "to": "left" }])),
            [at("gate", ValidationErrorKind::TooFewChoices), at("right", ValidationErrorKind::Unreachable)]
        );
        assert_eq!(
            faults_after(|c| c["connections"].as_array_mut().unwrap().push(json!({ "from": "right", "to": "moon" }))),
            [at("moon", ValidationErrorKind::DanglingConnection)]
        );
        assert_eq!(
            faults_after(|c| c["nodes"].as_array_mut().unwrap().push(json!({ "id": "left", "type": "story" }))),
            [at("left", ValidationErrorKind::DuplicateNode)]
        );
    }

    #[test]
    fn a_story_without_an_end_is_faulty() {
        let faults = faults_after(|c| {
            let connections = c["connections"].as_array_mut().unwrap();
            connections.push(json!({ "from": "left", "to": "gate" }));
            connections.push(json!({ "from": "right", "to": "gate" }));
        });
        assert_eq!(faults, [ValidationError { node: None, kind: ValidationErrorKind::NoEnding }]);
    }

    #[test]
    fn unknown_fields_are_kept() {
        let mut value = sound();
        value["nodes"][2]["music"] = json!("wind");
        value["connections"][0]["label"] = json!("Go left");
        let kept = serde_json::to_value(content(value)).unwrap();
        assert_eq!(kept["nodes"][2]["music"], "wind");
        assert_eq!(kept["connections"][0]["label"], "Go left");
    }
}
