// What is told of a version, on each page that lists some.

import { bytes, number, percent } from "../dom.js";

// What a version is, and whose updates are in it though they were forgotten.
function kind(row) {
  const is = row.restored !== null ? `as version ${row.restored}` : row.given ?? "made of updates";
  return row.with_forgotten.length ? `${is}; with updates of ${row.with_forgotten.join(", ")}, since forgotten` : is;
}

export const VERSION_COLUMNS = [
  { label: "Version", number: true, value: (row) => number(row.number) },
  { label: "Updates", number: true, value: (row) => number(row.updates) },
  { label: "Staleness", number: true, value: (row) => number(row.mean_staleness) },
  { label: "Devices' loss", number: true, value: (row) => number(row.mean_loss) },
  { label: "Accuracy", number: true, value: (row) => percent(row.accuracy) },
  { label: "Loss", number: true, value: (row) => number(row.evaluated_loss) },
  { label: "Bytes of updates", number: true, value: (row) => bytes(row.update_bytes) },
  { label: "Weights", number: true, value: (row) => bytes(row.weights_bytes) },
  { label: "Is", value: kind },
];
