// Makes a component: build.mjs SOURCE WIT OUTPUT.

import { writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';

const [sourcePath, witPath, output] = process.argv.slice(2);
const { component } = await componentize({
  sourcePath,
  witPath,
  worldName: 'postprocessor',
  // Plugins have no network: without these two the engine does not ask for one.
  disableFeatures: ['http', 'fetch-event'],
});
await writeFile(output, component);
