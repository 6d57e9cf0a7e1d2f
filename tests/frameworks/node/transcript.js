// What all tasks share: where the servers are, and lines of what was found, which two servers must agree on.
"use strict";

const util = require("util");

exports.host = "127.0.0.1";
exports.port = Number(process.env.RESP_PORT);
exports.memcachedPort = Number(process.env.MEMCACHED_PORT);

exports.found = (name, value) => {
  console.log(`${name}: ${util.inspect(value, { depth: 8, breakLength: Infinity, sorted: true })}`);
};

exports.sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

exports.until = async (condition, patienceMs = 30_000) => {
  const deadline = Date.now() + patienceMs;
  while (!(await condition())) {
    if (Date.now() > deadline) return false;
    await exports.sleep(10);
  }
  return true;
};

// Runs the tasks that the command line names, or all of them, and ends whatever they left open.
exports.run = async (tasks) => {
  const wanted = process.argv.slice(2);
  for (const [name, task] of Object.entries(tasks)) {
    if (wanted.length && !wanted.includes(name)) continue;
    console.log(`-- ${name}`);
    await task();
  }
  process.exit(0);
};

process.on("unhandledRejection", (error) => {
  console.error(error);
  process.exit(1);
});
