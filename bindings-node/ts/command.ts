#!/usr/bin/env node
/** `npx realm`: the `realm` command. */

import { native } from './native.js'

process.exitCode = native.command(['realm', ...process.argv.slice(2)])
