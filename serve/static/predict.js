// The form leaves all checks to the server, which explains every wrong field at once. Only the
// browser knows of letters in a number field, which it would send as a blank: it says so itself.
document.addEventListener("submit", (event) => {
  const fields = [...document.querySelectorAll("main input")];
  const unreadable = fields.find((field) => field.validity.badInput);
  if (unreadable) {
    event.preventDefault();
    unreadable.reportValidity();
  }
});
