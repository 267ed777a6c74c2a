/** What a source file imports and exports, read from the syntax tree of the `typescript` package. */
import ts from 'typescript';

/**
 * Every module a file names: `import`, `export ... from`, `import()` and `import('...')` types, type-only ones
 * included. Returns { imports: [{ specifier, line }], defaultExports: [line] }.
 */
export function readModule(path, text) {
  const source = ts.createSourceFile(path, text, ts.ScriptTarget.ESNext, true);
  const imports = [];
  const defaultExports = [];
  const lineOf = (node) => source.getLineAndCharacterOfPosition(node.getStart(source)).line + 1;
  const add = (node) => {
    if (node && ts.isStringLiteralLike(node)) imports.push({ specifier: node.text, line: lineOf(node) });
  };
  const visit = (node) => {
    if (ts.isImportDeclaration(node)) add(node.moduleSpecifier);
    else if (ts.isExportDeclaration(node)) {
      add(node.moduleSpecifier);
      const named =
        node.exportClause && ts.isNamedExports(node.exportClause) ? node.exportClause.elements : [];
      for (const element of named) if (element.name.text === 'default') defaultExports.push(lineOf(element));
    } else if (ts.isExportAssignment(node)) defaultExports.push(lineOf(node));
    else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) add(node.argument.literal);
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword)
      add(node.arguments[0]);
    else if (node.modifiers?.some((modifier) => modifier.kind === ts.SyntaxKind.DefaultKeyword)) {
      defaultExports.push(lineOf(node));
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return { imports, defaultExports };
}
