// Writes docs/node.md, the reference of the package: what dist/index.d.ts declares, with its documentation.
//
//     node scripts/reference.mjs            writes the page; dist/ has to be built
//     node scripts/reference.mjs --check    fails where the page is of another package

import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

import ts from 'typescript'

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')
const page = resolve(root, '../docs/node.md')
const HEAD = `# Reference of the Node package

Written by \`bindings-node/scripts/reference.mjs\` from the package's declarations, which editors show, too. The
[README](../bindings-node/README.md) is where to begin.
`

const entry = join(root, 'dist/index.d.ts')
const options = { module: ts.ModuleKind.Node16, moduleResolution: ts.ModuleResolutionKind.Node16, types: [] }
const program = ts.createProgram([entry], options)
const checker = program.getTypeChecker()
const source = program.getSourceFile(entry)
if (!source) throw new Error(`${relative('.', entry)} is missing: run node scripts/build.mjs`)

const about = (symbol) => ts.displayPartsToString(symbol.getDocumentationComment(checker)).trim()
/** A declaration in one line, without its body and what only declarations have. */
const line = (node) =>
  node
    .getText()
    .replace(/\/\*\*?[^]*?\*\//g, '')
    .replace(/\s+/g, ' ')
    .replace(/^(export )?(declare )?/, '')
    .replace(/ \| undefined(?=;?$)/, '')
    .replace(/;$/, '')
    .trim()
const isPublic = (member) =>
  !(ts.getCombinedModifierFlags(member) & (ts.ModifierFlags.Private | ts.ModifierFlags.Protected)) &&
  !(member.name && ts.isPrivateIdentifier(member.name)) &&
  !ts.isIndexSignatureDeclaration(member)

/** Fields as a list, and methods each with a heading. */
function members(declaration) {
  const fields = []
  const methods = []
  const seen = new Set()
  for (const member of declaration.members.filter(isPublic)) {
    const symbol = member.symbol
    const text = symbol ? about(symbol) : ''
    if (ts.isPropertyDeclaration(member) || ts.isPropertySignature(member) || ts.isGetAccessor(member)) {
      const said = line(member).replace(/^get (\w+)\(\)/, '$1').replace(/^readonly /, '')
      fields.push(`- \`${said}\`${text ? `. ${text.replace(/\s+/g, ' ')}` : ''}`)
    } else if (!ts.isSetAccessor(member)) {
      // Of several overloads each has its line, and the first has the documentation.
      methods.push(`#### \`${line(member)}\`\n`)
      if (text && !seen.has(symbol)) methods.push(`${text}\n`)
      seen.add(symbol)
    }
  }
  return [...(fields.length > 0 ? [fields.join('\n') + '\n'] : []), ...methods]
}

function section(symbol) {
  const found = symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol
  const declaration = found.declarations[0]
  const text = about(found)
  const out = []
  if (ts.isClassDeclaration(declaration) || ts.isInterfaceDeclaration(declaration)) {
    const head = line(declaration).split('{')[0].trim()
    out.push(`## \`${head}\`\n`)
    if (text) out.push(`${text}\n`)
    out.push(...members(declaration))
  } else {
    for (const each of found.declarations) out.push(`## \`${line(each).replace(/^function /, '')}\`\n`)
    if (text) out.push(`${text}\n`)
  }
  return out.join('\n')
}

const exported = checker.getExportsOfModule(checker.getSymbolAtLocation(source)).filter(({ name }) => name !== 'default')
const byName = (a, b) => (a.name.toLowerCase() < b.name.toLowerCase() ? -1 : 1)
const written = [HEAD, ...exported.sort(byName).map(section)].join('\n')
if (!process.argv.includes('--check')) {
  writeFileSync(page, written)
} else if (readFileSync(page, { encoding: 'utf8', flag: 'a+' }) !== written) {
  console.error(`${relative('.', page)} is of another package: run node scripts/reference.mjs and commit the result`)
  process.exit(1)
}
