// node build.mjs PROGRAM.js OUT.wasm: makes a component of a program. A program that exports `policy` is a policy.
//
// What JavaScript's own library would ask the host for is left out: a tenant has no clock, no randomness and no network
// but what the contract gives it.
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { componentize } from '@bytecodealliance/componentize-js';

const [source, out] = process.argv.slice(2);
if (!source || !out) {
  console.error('usage: node build.mjs PROGRAM.js OUT.wasm');
  process.exit(2);
}
const program = await readFile(source, 'utf8');
const { component } = await componentize(program, {
  witPath: fileURLToPath(new URL('../../core/sandbox/wit', import.meta.url)),
  worldName: /^export const policy\b/m.test(program) ? 'tenant-policy' : 'tenant-program',
  disableFeatures: ['clocks', 'fetch-event', 'http', 'random', 'stdio'],
});
await writeFile(out, component);
