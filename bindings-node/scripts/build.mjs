// Builds the package: the native half for this platform into npm/PLATFORM/, and dist/ from ts/.
//
//     node scripts/build.mjs [--release] [--pack FOLDER]
//
// With --pack two tarballs are written to FOLDER: `realm`, and the package of this platform that it depends on.

import { execFileSync } from 'node:child_process'
import { appendFileSync, copyFileSync, cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')
const release = process.argv.includes('--release')
const pack = process.argv.indexOf('--pack')
const run = (command, ...args) => execFileSync(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] })
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))

// What a publisher builds on a machine of each kind.
const PLATFORMS = {
  'linux-x64-gnu': { os: ['linux'], cpu: ['x64'], libc: ['glibc'] },
  'linux-arm64-gnu': { os: ['linux'], cpu: ['arm64'], libc: ['glibc'] },
  'darwin-arm64': { os: ['darwin'], cpu: ['arm64'] },
  'darwin-x64': { os: ['darwin'], cpu: ['x64'] },
  'win32-x64-msvc': { os: ['win32'], cpu: ['x64'] },
}
const suffix = { linux: '-gnu', win32: '-msvc' }[process.platform] ?? ''
const platform = `${process.platform}-${process.arch}${suffix}`
if (!(platform in PLATFORMS)) throw new Error(`there is no package for ${platform}; add it to scripts/build.mjs`)

// The native half.
run('cargo', 'build', '--locked', '--quiet', '-p', 'realm-node', ...(release ? ['--release'] : []))
const target = resolve(process.env.CARGO_TARGET_DIR ?? join(root, '../target'), release ? 'release' : 'debug')
const library = { win32: 'realm_node.dll', darwin: 'librealm_node.dylib' }[process.platform] ?? 'librealm_node.so'
const folder = join(root, 'npm', platform)
rmSync(folder, { recursive: true, force: true })
mkdirSync(folder, { recursive: true })
copyFileSync(join(target, library), join(folder, 'realm.node'))
if (process.platform === 'linux') run('strip', '--strip-unneeded', join(folder, 'realm.node'))
if (process.env.REALM_GLIBC) run('../ci/check-glibc', join(folder, 'realm.node'))
const { version, license, author } = manifest
const description = `The native half of realm for ${platform}`
const licenses = ['LICENSE-APACHE', 'LICENSE-MIT']
for (const file of licenses) copyFileSync(join(root, '..', file), join(folder, file))
const files = ['realm.node', ...licenses]
const native = { name: `realm-${platform}`, version, description, license, author, main: 'realm.node', files }
writeFileSync(join(folder, 'package.json'), JSON.stringify({ ...native, ...PLATFORMS[platform] }, null, 2) + '\n')

// What users see, for `require` and for `import`.
rmSync(join(root, 'dist'), { recursive: true, force: true })
run(process.execPath, join(root, 'node_modules/typescript/bin/tsc'), '-p', root)
// Where npm would put it.
const linked = join(root, 'node_modules', `realm-${platform}`)
rmSync(linked, { recursive: true, force: true })
symlinkSync(folder, linked, 'junction')
const names = Object.keys(createRequire(import.meta.url)(join(root, 'dist/index.js')))
const whole = 'declare const realm: typeof import("./index.js")\nexport default realm\n'
// For TypeScript's `import realm from 'realm'` in programs that it compiles to `require`.
appendFileSync(join(root, 'dist/index.js'), "Object.defineProperty(exports, 'default', { value: exports })\n")
appendFileSync(join(root, 'dist/index.d.ts'), whole)
const esm = `import realm from './index.js'\nexport const { ${names.join(', ')} } = realm\nexport default realm\n`
writeFileSync(join(root, 'dist/index.mjs'), esm)
writeFileSync(join(root, 'dist/index.d.mts'), "export * from './index.js'\nexport { default } from './index.js'\n")

if (pack > 0) {
  const out = resolve(process.argv[pack + 1])
  const stage = join(out, 'stage')
  rmSync(out, { recursive: true, force: true })
  mkdirSync(join(stage, 'dist'), { recursive: true })
  const { devDependencies, scripts, ...published } = manifest
  published.optionalDependencies = Object.fromEntries(
    Object.keys(PLATFORMS).map((name) => [`realm-${name}`, version]),
  )
  writeFileSync(join(stage, 'package.json'), JSON.stringify(published, null, 2) + '\n')
  copyFileSync(join(root, 'README.md'), join(stage, 'README.md'))
  for (const file of licenses) copyFileSync(join(root, '..', file), join(stage, file))
  cpSync(join(root, 'dist'), join(stage, 'dist'), { recursive: true })
  // On Windows npm is a script, which only a shell runs.
  const shell = process.platform === 'win32'
  for (const packed of [stage, folder]) {
    const where = ['--pack-destination', '.', shell ? `"${packed}"` : packed]
    execFileSync('npm', ['pack', '--silent', ...where], { cwd: out, shell, stdio: ['ignore', 'inherit', 'inherit'] })
  }
  rmSync(stage, { recursive: true })
}
