-- One file holds the state of tasks, the logs of spouts, and the documents of the output.

CREATE TABLE task (
  id INTEGER PRIMARY KEY, topology TEXT NOT NULL, node TEXT NOT NULL, number INTEGER NOT NULL, fence INTEGER NOT NULL,
  UNIQUE (topology, node, number)
);
CREATE TABLE value   (task INTEGER, key BLOB, value BLOB NOT NULL, PRIMARY KEY (task, key)) WITHOUT ROWID;
-- What commits have changed, and is not merged into the other tables yet.
CREATE TABLE change  (seq INTEGER PRIMARY KEY, task INTEGER NOT NULL, batch BLOB NOT NULL);
CREATE TABLE floor   (task INTEGER, origin INTEGER, floor INTEGER NOT NULL, PRIMARY KEY (task, origin)) WITHOUT ROWID; -- origin: its bits as int64
-- What was applied: packed (state.Pack) where nothing but the position is recorded, else in applied. Both go by the floor.
CREATE TABLE pack    (seq INTEGER PRIMARY KEY, task INTEGER NOT NULL, origin INTEGER NOT NULL, greatest INTEGER NOT NULL, ids BLOB NOT NULL);
CREATE INDEX pack_greatest ON pack (task, origin, greatest);
CREATE TABLE applied (
  task INTEGER, id BLOB, origin INTEGER NOT NULL, offset INTEGER NOT NULL, slices INTEGER NOT NULL, unfinished INTEGER NOT NULL, cursor BLOB NOT NULL,
  PRIMARY KEY (task, id)
) WITHOUT ROWID;
CREATE INDEX applied_position ON applied (task, origin, offset);
-- With a rowid, since outputs may be long: without one, each comparison of a search, also of a search in vain, would read the whole row.
CREATE TABLE output  (task INTEGER, id BLOB, slice INTEGER, outputs BLOB NOT NULL, PRIMARY KEY (task, id, slice));
CREATE TABLE agenda  (task INTEGER, key BLOB, at INTEGER NOT NULL, PRIMARY KEY (task, key)) WITHOUT ROWID;
CREATE INDEX agenda_at ON agenda (task, at);

CREATE TABLE log (
  id INTEGER PRIMARY KEY, topology TEXT NOT NULL, name TEXT NOT NULL,
  generation INTEGER NOT NULL DEFAULT 0, floor INTEGER NOT NULL DEFAULT 0, length INTEGER NOT NULL DEFAULT 0, UNIQUE (topology, name)
);
CREATE TABLE entry (log INTEGER, number INTEGER, entry BLOB NOT NULL, PRIMARY KEY (log, number)) WITHOUT ROWID;
CREATE TABLE once  (log INTEGER, name BLOB, number INTEGER NOT NULL, PRIMARY KEY (log, name)) WITHOUT ROWID;

-- Each collection has a table document_<id> (seq INTEGER PRIMARY KEY, id TEXT UNIQUE, version INTEGER, body TEXT), seq in order of insertion.
CREATE TABLE collection (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
