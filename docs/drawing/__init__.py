"""What the pages of the reference show of the code, as Markdown: a module for each page that has drawn parts."""
