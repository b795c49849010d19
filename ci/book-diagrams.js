// Draws the Mermaid diagrams of a page. ci/book puts mermaid.min.js beside the pages; without it a diagram's source stays as it is.
(() => {
  const sources = document.querySelectorAll('code.language-mermaid')
  if (sources.length === 0) return
  const script = document.createElement('script')
  script.src = `${typeof path_to_root === 'string' ? path_to_root : ''}mermaid.min.js`
  script.onload = () => {
    for (const source of sources) {
      const diagram = document.createElement('pre')
      diagram.className = 'mermaid'
      diagram.textContent = source.textContent
      source.parentElement.replaceWith(diagram)
    }
    const dark = /coal|navy|ayu/.test(document.documentElement.className)
    mermaid.initialize({ startOnLoad: false, theme: dark ? 'dark' : 'default' })
    mermaid.run()
  }
  document.head.append(script)
})()
