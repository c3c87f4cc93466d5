//! The content of an adventure, and its validation.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The story of an adventure (`adventures.content`): nodes (its scenes), the connections between them, and the node at
/// which the story starts. Unknown fields are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AdventureContent {
    /// The nodes of the story.
    #[serde(default)]
    pub nodes: Vec<Node>,
    /// The connections between nodes.
    #[serde(default)]
    pub connections: Vec<NodeConnection>,
    /// Id of the node at which the story starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Further fields, stored unchanged.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The kind of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeKind {
    /// The Seer tells the story.
    Story,
    /// The players choose between two or more connections.
    Decision,
    /// A riddle or a task.
    Challenge,
    /// A fight against one or more enemies.
    Combat,
    /// The outcome of a roll decides how the story continues.
    Check,
}

/// A node: one scene of the story.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Node {
    /// Id of the node, unique within the adventure.
    pub id: String,
    /// Kind of the node.
    #[serde(rename = "type", alias = "kind")]
    pub kind: NodeKind,
    /// Heading.
    #[serde(default)]
    pub title: String,
    /// The text that the Seer reads aloud.
    #[serde(default)]
    pub text: String,
    /// Names or ids of the creatures in a combat.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enemies: Vec<Value>,
    /// Further fields, stored unchanged.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A connection from one node to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodeConnection {
    /// Id of the node that the connection leads from.
    pub from: String,
    /// Id of the node that the connection leads to.
    pub to: String,
    /// The text of the choice, as shown to the players.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Further fields, stored unchanged.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// An error in the content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct ValidationError {
    /// Id of the node that the error is about; a dangling connection names a node that does not exist. `None` if the
    /// error concerns the content as a whole.
    pub node: Option<String>,
    /// What is wrong.
    pub kind: ValidationErrorKind,
}

/// The kind of an error in the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ValidationErrorKind {
    /// The document does not have the shape of [`AdventureContent`].
    Unreadable,
    /// `start` is absent, or no node has this id.
    NoStart,
    /// Another node has the same id.
    DuplicateNode,
    /// The node cannot be reached from the start.
    Unreachable,
    /// A connection leads from or to this node, which does not exist.
    DanglingConnection,
    /// No node ends the story. A node ends the story if no connection leads from the node and it is not a decision.
    NoEnding,
    /// A decision has fewer than two connections that lead from it.
    TooFewChoices,
    /// A combat has no enemy.
    NoEnemy,
}

impl AdventureContent {
    /// Returns valid content with a single node, at which the story starts and ends. `text` is the text of the node.
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

    /// Returns all errors; valid content has none. Their order: duplicate ids, dangling connections, a missing start,
    /// the other errors of nodes in the order of the nodes, a missing ending. Without a start, no node is reported as
    /// unreachable.
    #[must_use]
    pub fn validate(&self) -> Vec<ValidationError> {
        let mut errors = Vec::new();
        let mut add_error = |node: Option<&str>, kind| {
            errors.push(ValidationError { node: node.map(str::to_owned), kind });
        };

        let mut node_ids = HashSet::new();
        for node in &self.nodes {
            if !node_ids.insert(node.id.as_str()) {
                add_error(Some(&node.id), ValidationErrorKind::DuplicateNode);
            }
        }
        let mut targets_by_source: HashMap<&str, Vec<&str>> = HashMap::new();
        for NodeConnection { from, to, .. } in &self.connections {
            for node_id in [from, to] {
                if !node_ids.contains(node_id.as_str()) {
                    add_error(Some(node_id), ValidationErrorKind::DanglingConnection);
                }
            }
            targets_by_source.entry(from).or_default().push(to);
        }
        let outgoing_count = |node: &Node| targets_by_source.get(node.id.as_str()).map_or(0, Vec::len);

        let start = self.start.as_deref().filter(|start| node_ids.contains(start));
        let mut reached_ids = HashSet::new();
        match start {
            None => add_error(None, ValidationErrorKind::NoStart),
            Some(start) => {
                let mut pending_ids = vec![start];
                while let Some(node_id) = pending_ids.pop() {
                    if reached_ids.insert(node_id) {
                        pending_ids.extend(targets_by_source.get(node_id).into_iter().flatten());
                    }
                }
            }
        }
        for node in &self.nodes {
            if start.is_some() && !reached_ids.contains(node.id.as_str()) {
                add_error(Some(&node.id), ValidationErrorKind::Unreachable);
            }
            match node.kind {
                NodeKind::Decision if outgoing_count(node) < 2 => {
                    add_error(Some(&node.id), ValidationErrorKind::TooFewChoices);
                }
                NodeKind::Combat if node.enemies.is_empty() => {
                    add_error(Some(&node.id), ValidationErrorKind::NoEnemy);
                }
                _ => {}
            }
        }
        if !self.nodes.iter().any(|node| outgoing_count(node) == 0 && node.kind != NodeKind::Decision) {
            add_error(None, ValidationErrorKind::NoEnding);
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{AdventureContent, ValidationError, ValidationErrorKind};

    fn parse(document: serde_json::Value) -> AdventureContent {
        serde_json::from_value(document).unwrap()
    }

    fn valid_document() -> serde_json::Value {
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

    fn errors_after(change: impl FnOnce(&mut serde_json::Value)) -> Vec<ValidationError> {
        let mut document = valid_document();
        change(&mut document);
        parse(document).validate()
    }

    fn error_at(node: &str, kind: ValidationErrorKind) -> ValidationError {
        ValidationError { node: Some(node.to_owned()), kind }
    }

    #[test]
    fn valid_content_has_no_errors() {
        assert_eq!(parse(valid_document()).validate(), []);
        assert_eq!(AdventureContent::single_scene("Once.").validate(), []);
    }

    #[test]
    fn each_error_names_its_node_if_it_has_one() {
        assert_eq!(
            errors_after(|content| content["start"] = json!("nowhere")),
            [ValidationError { node: None, kind: ValidationErrorKind::NoStart }]
        );
        assert_eq!(
            errors_after(|content| content["nodes"][1]["enemies"] = json!([])),
            [error_at("left", ValidationErrorKind::NoEnemy)]
        );
        assert_eq!(
            errors_after(|content| content["connections"] = json!([{ "from": "gate", "to": "left" }])),
            [error_at("gate", ValidationErrorKind::TooFewChoices), error_at("right", ValidationErrorKind::Unreachable)]
        );
        assert_eq!(
            errors_after(|content| content["connections"]
                .as_array_mut()
                .unwrap()
                .push(json!({ "from": "right", "to": "moon" }))),
            [error_at("moon", ValidationErrorKind::DanglingConnection)]
        );
        assert_eq!(
            errors_after(|content| content["nodes"]
                .as_array_mut()
                .unwrap()
                .push(json!({ "id": "left", "type": "story" }))),
            [error_at("left", ValidationErrorKind::DuplicateNode)]
        );
    }

    #[test]
    fn content_without_an_ending_is_invalid() {
        let errors = errors_after(|content| {
            let connections = content["connections"].as_array_mut().unwrap();
            connections.push(json!({ "from": "left", "to": "gate" }));
            connections.push(json!({ "from": "right", "to": "gate" }));
        });
        assert_eq!(errors, [ValidationError { node: None, kind: ValidationErrorKind::NoEnding }]);
    }

    #[test]
    fn unknown_and_optional_fields_are_kept() {
        let mut document = valid_document();
        document["nodes"][2]["music"] = json!("wind");
        document["connections"][0]["label"] = json!("Go left");
        let serialized = serde_json::to_value(parse(document)).unwrap();
        assert_eq!(serialized["nodes"][2]["music"], "wind");
        assert_eq!(serialized["connections"][0]["label"], "Go left");
    }
}
